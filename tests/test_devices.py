"""The model goes to the accelerator where there is one, and everything it reads follows it there."""

from collections.abc import Iterator
from itertools import pairwise
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from device_stand_in import DEVICE, StandInMode, TensorThere
from training_runs import report_of
from transformers import PreTrainedModel, TrainingArguments

from chat.batching import BatchingClassifier, usual_batch_size
from chat.explanation import word_contributions
from text_classifier import runtime
from text_classifier.__main__ import main
from text_classifier.classifier import Classifier
from text_classifier.extras import ray_scoring
from text_classifier.runtime import choose_device, fast_dtype
from text_classifier.training.config import machine_defaults

TEXTS = [f"message {number}, call {number} " + "very " * (number % 9) + "long" for number in range(40)]
CPU = torch.device("cpu")


@pytest.fixture
def accelerator(monkeypatch) -> Iterator[torch.device]:
    """A machine with one accelerator, the stand-in, which multiplies in bfloat16; DEVICE is not set."""
    monkeypatch.delenv("DEVICE", raising=False)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: DEVICE)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    module = SimpleNamespace(is_bf16_supported=lambda including_emulation: True)
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    # It indexes with a list of numbers, which PyTorch puts on the device without asking the stand-in.
    monkeypatch.setattr(PreTrainedModel, "warn_if_padding_and_no_attention_mask", lambda *_: None)
    with StandInMode():
        yield DEVICE


def test_the_stand_in_refuses_tensors_of_two_devices(accelerator):
    there = torch.ones(2).to(accelerator)
    assert isinstance(there, TensorThere) and (there + 1).cpu().tolist() == [2, 2]
    with pytest.raises(RuntimeError, match="two devices"):
        there + torch.ones(2)


@pytest.mark.parametrize("packed", [True, False])
def test_inputs_follow_the_model(accelerator, tiny_review_adapter, monkeypatch, packed):
    if not packed:
        monkeypatch.setattr(runtime, "_PACKABLE", {})
    loaded, on_cpu = Classifier.load(tiny_review_adapter), Classifier.load(tiny_review_adapter, device=CPU)
    assert {tensor.device for tensor in (*loaded.model.parameters(), *loaded.model.buffers())} == {accelerator}
    assert on_cpu.model.device == CPU
    answers, expected = ([answer.probability for answer in one.answer(TEXTS)] for one in (loaded, on_cpu))
    assert answers == pytest.approx(expected, abs=1e-5)
    # Explanations follow it, too.
    text = "WIN a FREE prize now, call 12345"
    words, expected = (word_contributions(text, one.answer_parts) for one in (loaded, on_cpu))
    assert dict(words) == pytest.approx(dict(expected), abs=1e-3)


def test_batches_are_larger_on_an_accelerator(accelerator, tiny_review_adapter, monkeypatch):
    packed_logits = Mock(wraps=runtime._packed_logits)
    monkeypatch.setattr(runtime, "_packed_logits", packed_logits)
    for device in (CPU, accelerator):
        packed_logits.reset_mock()
        Classifier.load(tiny_review_adapter, device=device).answer(TEXTS * 4)
        largest = max(sum(map(len, call.args[0])) for call in packed_logits.call_args_list)
        assert largest <= 256 if device == CPU else 1000 < largest <= 4096
    assert usual_batch_size(CPU) == 16 and usual_batch_size(accelerator) == 256
    # Explanations of an accelerator take larger steps, too.
    steps = []
    classifier = SimpleNamespace(answer_parts=lambda texts: steps.append(len(texts)) or [])
    for device in (CPU, accelerator):
        BatchingClassifier(classifier, usual_batch_size(device))._classify_when_idle(["text"] * 16)
    assert steps == [4, 4, 4, 4, 16]


def test_device_forbids_the_accelerator_or_names_one(accelerator, monkeypatch):
    for name, expected in (("", "meta"), ("cpu", "cpu"), ("meta", "meta"), ("meta:0", "meta:0")):
        monkeypatch.setenv("DEVICE", name)
        assert choose_device() == torch.device(expected)
    for name in ("meta:1", "gpu", "CPU 0"):
        monkeypatch.setenv("DEVICE", name)
        with pytest.raises(ValueError, match=f"DEVICE={name}: this machine has cpu, meta, meta:0"):
            choose_device()


def test_a_device_that_is_not_there_is_told_in_one_line(tiny_review_adapter, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("DEVICE", "cuda:7")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: None)
    (tmp_path / "messages.csv").write_text("Text\nhello\n")
    command = [str(tmp_path / "messages.csv"), "--output", str(tmp_path / "scored.csv")]
    assert main([*command, "--adapter_dir", str(tiny_review_adapter)]) == 1
    assert capsys.readouterr().err == "Error: DEVICE=cuda:7: this machine has cpu.\n"


def test_bfloat16_where_the_device_has_it(monkeypatch):
    modules = {"cuda": Mock(), "xpu": Mock(), "mps": SimpleNamespace()}
    modules["cuda"].is_bf16_supported.return_value = True
    # Emulated bfloat16 is slower than float32.
    modules["xpu"].is_bf16_supported = lambda including_emulation: including_emulation
    monkeypatch.setattr(torch, "get_device_module", lambda device: modules[device.type])
    formats = {name: fast_dtype(torch.device(name)) for name in modules}
    assert formats == {"cuda": torch.bfloat16, "xpu": torch.float32, "mps": torch.float32}
    for instructions, expected in (({}, torch.float32), ({"amx_bf16": True}, torch.bfloat16)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda instructions=instructions: instructions)
        assert fast_dtype(CPU) is expected


@pytest.mark.parametrize(
    ("gpus", "workers", "device", "expected"),
    [(0, 1, "", False), (2, 2, "", True), (2, 3, "", False), (2, 2, "cpu", False), (2, 2, "cuda", True)],
)
def test_ray_workers_get_a_gpu_each_or_none(monkeypatch, gpus, workers, device, expected):
    monkeypatch.setenv("DEVICE", device)
    monkeypatch.setattr(ray_scoring.ray, "cluster_resources", lambda: {"GPU": gpus} if gpus else {})
    assert ray_scoring._has_gpus(workers) is expected
    # Ray gives out the devices itself.
    monkeypatch.setenv("DEVICE", "cuda:1")
    with pytest.raises(ValueError, match="DEVICE=cuda:1 does not go with --workers"):
        ray_scoring._has_gpus(workers)


@pytest.mark.parametrize(("has_gpu", "device"), [(True, DEVICE), (False, CPU)])
def test_a_ray_worker_uses_its_gpu(accelerator, tiny_review_adapter, has_gpu, device):
    assert ray_scoring.Scorer(str(tiny_review_adapter), None, has_gpu).classifier.model.device == device


# ---------------------------------------------------------------------------- training


@pytest.mark.parametrize(
    ("has_bf16", "flags", "expected"),
    [
        (True, [], (True, False)),
        (False, [], (False, True)),
        (True, ["--fp16", "true"], (False, True)),
        (False, ["--bf16", "false"], (False, False)),
    ],
)
def test_training_takes_the_fast_number_format_of_a_gpu(monkeypatch, has_bf16, flags, expected):
    """A T4 has no instructions for bfloat16. A flag alone chooses another format."""
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: gpu)
    module = SimpleNamespace(is_bf16_supported=lambda including_emulation: has_bf16)
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    chosen = machine_defaults(flags) | {flag.strip("-"): value == "true" for flag, value in pairwise(flags)}
    assert (chosen["bf16"], chosen["fp16"]) == expected


def test_one_of_two_gpus_is_used_and_said(tmp_path, train, monkeypatch, caplog):
    """Two are played on the CPU. Trainer would wrap the model in DataParallel and take twice the batch."""
    setup = TrainingArguments._setup_devices.func

    def setup_two(args):
        device = setup(args)
        args._n_gpu = 2
        return device

    monkeypatch.setattr(TrainingArguments._setup_devices, "func", setup_two)
    flags = "--num_train_epochs 1 --per_device_train_batch_size 6 --eval_strategy no --save_strategy no"
    with caplog.at_level("INFO"):
        assert train(f"{flags} --load_best_model_at_end false") == 0
    assert "One of 2 GPUs is used. To use all: torchrun --nproc_per_node 2" in caplog.text
    assert "Device: CPU, float32, 6 messages a step" in caplog.text
    assert report_of(tmp_path)["training"]["steps"] == 84 / 6


@pytest.mark.parametrize("flag", ["--activation_checkpointing", "--auto_find_batch_size"])
def test_options_that_save_memory_work(tmp_path, train, flag):
    assert train(f"{flag} true --num_train_epochs 1") == 0
    assert (tmp_path / "lora_model/adapter_model.safetensors").is_file()
