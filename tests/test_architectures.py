"""Bases of every architecture: each tuning trains what it should, and the saved model answers as the trained one."""

import itertools
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from shared import make_messages
from tokenizers import ByteLevelBPETokenizer, processors
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from gpt_classification_model import build_model
from text_classifier import classify, load_tokenizer_and_model
from text_classifier.errors import ConfigurationError
from text_classifier.runtime import encode
from text_classifier.sources.weights import BaseModel, resolve_base_model
from text_classifier.training.config import parse_arguments
from text_classifier.training.models import load_tokenizer, store_frozen_in_bfloat16
from text_classifier.training.saving import save_adapter

TEXTS = ["WIN a FREE prize now", "ok", "did you eat yet? I am home by 7", "URGENT! claim your £900 award", "see you"]
LABELS = torch.tensor([1, 0, 0, 1, 0])


@dataclass(frozen=True)
class Architecture:
    """A tiny model of an architecture, and the modules that a tuning should train, with blanks between names."""

    blocks: str
    head: str
    """What every tuning trains in full: the head, and BERT's pooler, which the checkpoint lacks."""
    after_blocks: str
    """What else stands between the last block and the answer."""
    adapted: str
    """The layers that LoRA adapts in every block."""
    size: dict
    decoder: bool = True


BERT_SIZE = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}
LLAMA_SIZE = {**BERT_SIZE, "num_key_value_heads": 1, "head_dim": 8}
# Like DeBERTa-v3, which normalises relative positions before the first block.
DEBERTA_SIZE = {**BERT_SIZE, "pooler_hidden_size": 16, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}
DEBERTA_SIZE |= {"norm_rel_ebd": "layer_norm", "share_att_key": True, "position_buckets": 8}
OPT_SIZE = {"hidden_size": 16, "word_embed_proj_dim": 16, "num_attention_heads": 2, "ffn_dim": 24}
DISTILBERT_SIZE = {"dim": 16, "n_heads": 2, "hidden_dim": 24}
LLAMA_LAYERS = "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj"
OPT_BLOCKS, OPT_NORM = "model.decoder.layers", "model.decoder.final_layer_norm"

ARCHITECTURES = {
    "gpt2": Architecture("transformer.h", "score", "transformer.ln_f", "c_attn c_proj", {"n_embd": 16, "n_head": 2}),
    "llama": Architecture("model.layers", "score", "model.norm", LLAMA_LAYERS, LLAMA_SIZE),
    "qwen2": Architecture("model.layers", "score", "model.norm", "q_proj v_proj", LLAMA_SIZE),
    "qwen3": Architecture("model.layers", "score", "model.norm", "q_proj v_proj", LLAMA_SIZE),
    "mistral": Architecture("model.layers", "score", "model.norm", "q_proj v_proj", LLAMA_SIZE),
    "gpt_neox": Architecture("gpt_neox.layers", "score", "gpt_neox.final_layer_norm", "query_key_value", BERT_SIZE),
    "opt": Architecture(OPT_BLOCKS, "score", OPT_NORM, "q_proj v_proj", OPT_SIZE),
    "distilbert": Architecture(
        "distilbert.transformer.layer", "pre_classifier classifier", "", "q_lin v_lin", DISTILBERT_SIZE, decoder=False
    ),
    "bert": Architecture(
        "bert.encoder.layer", "classifier bert.pooler", "", "query key value", BERT_SIZE, decoder=False
    ),
    "roberta": Architecture("roberta.encoder.layer", "classifier", "", "query value", BERT_SIZE, decoder=False),
    "modernbert": Architecture(
        "model.layers", "head classifier", "model.final_norm", "Wqkv Wo Wi", BERT_SIZE, decoder=False
    ),
    "deberta-v2": Architecture(
        "deberta.encoder.layer", "pooler classifier", "", "query_proj value_proj", DEBERTA_SIZE, decoder=False
    ),
}


def save_tokenizer(folder: Path, decoder: bool) -> int:
    """Save a byte-level BPE tokenizer; an encoder's has a pad token and puts tokens around each message.

    Returns:
        The size of its vocabulary.
    """
    special = ["<|endoftext|>"] if decoder else ["<s>", "<pad>", "</s>"]
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(make_messages()["Text"], vocab_size=300, special_tokens=special)
    names = {"eos_token": "<|endoftext|>"}
    if not decoder:
        bpe._tokenizer.post_processor = processors.BertProcessing(("</s>", 2), ("<s>", 0))
        names = {"cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>"}
    reads = ["input_ids", "attention_mask"]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, model_input_names=reads, **names)
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> dict[str, BaseModel]:
    """A language model of each architecture, with three blocks and random weights; it has no head and no pooler."""
    found = {}
    for name, architecture in ARCHITECTURES.items():
        folder = tmp_path_factory.mktemp("bases") / name
        vocab_size = save_tokenizer(folder, architecture.decoder)
        size = architecture.size | {"n_layers" if name == "distilbert" else "num_hidden_layers": 3}
        special = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None if architecture.decoder else 1}
        config = AutoConfig.for_model(name, vocab_size=vocab_size, **special, **size)
        torch.manual_seed(0)
        model = (AutoModelForCausalLM if architecture.decoder else AutoModelForMaskedLM).from_config(config)
        for weight in model.parameters():
            weight.data += torch.randn_like(weight) / 2
        model.save_pretrained(folder)
        found[name] = resolve_base_model(str(folder))
    return found


def build(base: BaseModel, *flags: str) -> tuple[PreTrainedTokenizerBase, torch.nn.Module]:
    """Return tokenizer and model, ready to train; all new weights but LoRA's zeros are ten times as large as usual.

    With small new weights, every message would get nearly the same answer.
    """
    model_args, _, _ = parse_arguments(["--lora_dropout", "0", *flags])
    tokenizer = load_tokenizer(base, max_length=32)
    torch.manual_seed(1)
    model = build_model(base, tokenizer, ["ham", "spam"], model_args)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data *= 10
    return tokenizer, model


def batch_of(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> dict[str, torch.Tensor]:
    return dict(tokenizer.pad(encode(texts, tokenizer, 32), return_tensors="pt"))


def train(model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase) -> None:
    """Take two steps: LoRA's first matrices move at the second. Weight decay moves weights whose gradient is 0 too."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    model.train()
    for _ in range(2):
        optimizer.zero_grad()
        model(**batch_of(TEXTS, tokenizer), labels=LABELS).loss.backward()
        optimizer.step()
    model.eval()


def logits_of(texts: list[str], tokenizer: PreTrainedTokenizerBase, model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return model(**batch_of(texts, tokenizer)).logits


def expected(name: str, tuning: str, weights: list[str]) -> set[str]:
    """Return those of a model's weights that a tuning should train."""
    architecture = ARCHITECTURES[name]
    if tuning == "full":
        return set(weights)
    modules = architecture.head.split()
    if tuning == "lora":
        modules = [f"base_model.model.{module}.modules_to_save.default" for module in modules]
    elif tuning != "head":
        numbers = (1, 2) if tuning == "last_two_blocks" else (2,)
        modules += [*architecture.after_blocks.split(), *(f"{architecture.blocks}.{number}" for number in numbers)]
    beginnings = tuple(f"{module}." for module in modules)
    return {weight for weight in weights if weight.startswith(beginnings) or ".lora_" in weight}


def adapted_layers(name: str, weights: list[str]) -> set[tuple[str, str]]:
    """Return the number of the block and the name of each layer that LoRA adapts."""
    paths = [weight.partition(".lora_")[0] for weight in weights if ".lora_" in weight]
    return {(path.partition(f".{ARCHITECTURES[name].blocks}.")[2][:1], path.rpartition(".")[2]) for path in paths}


@pytest.mark.parametrize("tuning", ["lora", "last_block", "full"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_tuned_base_is_saved_and_answers_as_trained(bases, tmp_path, name, tuning):
    tokenizer, model = build(bases[name], "--tuning", tuning)
    before = {weight: values.detach().clone() for weight, values in model.named_parameters()}
    train(model, tokenizer)
    changed = {weight for weight, values in model.named_parameters() if not torch.equal(values, before[weight])}
    assert changed == expected(name, tuning, list(before))
    layers = ARCHITECTURES[name].adapted.split() if tuning == "lora" else []
    assert adapted_layers(name, list(before)) == set(itertools.product("012", layers))
    logits = logits_of(TEXTS, tokenizer, model)
    assert logits.std(dim=0).min() > 0.02, "each message gets an answer of its own"

    save_adapter(model, tokenizer, bases[name], "# Card", tmp_path / "saved")
    tokenizer, loaded = load_tokenizer_and_model(tmp_path / "saved")
    torch.testing.assert_close(logits_of(TEXTS, tokenizer, loaded), logits, atol=1e-4, rtol=1e-4)
    together = [answer.positive_probability for answer in classify(TEXTS, tokenizer, loaded)]
    assert together == pytest.approx(logits.softmax(dim=1)[:, 1].tolist(), abs=1e-4)
    alone = [classify([text], tokenizer, loaded)[0].positive_probability for text in TEXTS]
    assert together == pytest.approx(alone, abs=1e-5), "padding changes no answer"


@pytest.mark.parametrize("layers", ["2", "9"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_lora_adapts_only_the_last_layers_and_the_backward_pass_ends_there(bases, name, layers):
    tokenizer, model = build(bases[name], "--lora_layers", layers)
    numbers = "12" if layers == "2" else "012"
    adapted = adapted_layers(name, [weight for weight, _ in model.named_parameters()])
    assert adapted == set(itertools.product(numbers, ARCHITECTURES[name].adapted.split()))
    first, reached = model.get_submodule(f"base_model.model.{ARCHITECTURES[name].blocks}.0"), []
    first.register_forward_hook(
        lambda *call: reached.append((call[-1][0] if isinstance(call[-1], tuple) else call[-1]).requires_grad)
    )
    model(**batch_of(TEXTS, tokenizer))
    assert reached == [layers == "9"]


@pytest.mark.parametrize("tuning", ["head", "last_two_blocks"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_head_and_last_two_blocks_are_found(bases, name, tuning):
    _, model = build(bases[name], "--tuning", tuning)
    trained = {weight for weight, values in model.named_parameters() if values.requires_grad}
    assert trained == expected(name, tuning, [weight for weight, _ in model.named_parameters()])


@pytest.mark.parametrize(
    ("tuning", "trained"),
    [
        ("lora", {"classifier"}),
        ("head", {"classifier"}),
        ("last_block", {"classifier", "bert.pooler", "bert.encoder.layer.2"}),
    ],
)
def test_a_pooler_that_the_base_has_stands_between_last_block_and_head(bases, tmp_path, tuning, trained):
    folder = tmp_path / "base"
    shutil.copytree(bases["bert"].path, folder)
    AutoModel.from_config(AutoConfig.from_pretrained(folder)).save_pretrained(folder)
    _, model = build(resolve_base_model(str(folder)), "--tuning", tuning)
    names = [name for name, weight in model.named_parameters() if weight.requires_grad and ".lora_" not in name]
    plain = {name.removeprefix("base_model.model.").replace(".modules_to_save.default", "") for name in names}
    assert {module for module in trained for name in plain if name.startswith(f"{module}.")} == trained
    assert all(name.startswith(tuple(f"{module}." for module in trained)) for name in plain)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_first_layers_of_a_base_train_in_bfloat16(bases, tmp_path, name):
    """As by the default recipe: some architectures list the kind of every layer, and the list has to be cut as well."""
    tokenizer, model = build(bases[name], "--fallback_model", bases[name].name, "--fallback_layers", "2")
    store_frozen_in_bfloat16(model)
    with torch.autocast("cpu", torch.bfloat16):
        train(model, tokenizer)
        logits = logits_of(TEXTS, tokenizer, model)
    save_adapter(model, tokenizer, bases[name], "# Card", tmp_path / "saved")
    tokenizer, loaded = load_tokenizer_and_model(tmp_path / "saved")
    assert loaded.config.num_hidden_layers == 2
    answers = [answer.positive_probability for answer in classify(TEXTS, tokenizer, loaded)]
    assert answers == pytest.approx(logits.float().softmax(dim=1)[:, 1].tolist(), abs=0.05)


@pytest.mark.parametrize(
    ("name", "weight"),
    [
        ("gpt2", "transformer.wpe.weight"),
        ("llama", "model.layers.2.mlp.up_proj.weight"),
        ("qwen3", "model.norm.weight"),
        ("gpt_neox", "gpt_neox.final_layer_norm.bias"),
        ("opt", "model.decoder.final_layer_norm.weight"),
        ("distilbert", "distilbert.embeddings.position_embeddings.weight"),
        ("bert", "bert.embeddings.LayerNorm.weight"),
        ("bert", "bert.encoder.layer.2.output.dense.bias"),
        ("modernbert", "model.final_norm.weight"),
        ("deberta-v2", "deberta.encoder.LayerNorm.weight"),
    ],
)
def test_a_base_that_lacks_a_weight_of_its_body_is_refused(bases, tmp_path, name, weight):
    folder = tmp_path / "base"
    shutil.copytree(bases[name].path, folder)
    weights = load_file(folder / "model.safetensors")
    del weights[weight]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigurationError, match=f"lacks weights of its architecture: {weight} "):
        build(resolve_base_model(str(folder)))
