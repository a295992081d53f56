"""What every training run needs: devices, several processes, errors, checkpoints and resuming."""

import contextlib
import json
import logging
import os
import platform
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

import psutil
import torch
from accelerate.utils import broadcast_object_list
from transformers import Trainer, TrainingArguments

from text_classifier.errors import ArtifactError, ConfigurationError, describe_failure
from text_classifier.files import exclusive, write_json
from text_classifier.training.config import DataArguments, ModelArguments

logger = logging.getLogger(__name__)


def complete_checkpoints(output_dir: str | Path) -> list[Path]:
    """Return the checkpoint folders of a run, without those that a killed run left unfinished."""
    # The state is written last.
    return [state.parent for state in Path(output_dir).glob("checkpoint-*/trainer_state.json")]


def kept_step(trainer: Trainer) -> int:
    """Return the step whose weights the trained model has: the best step if its checkpoint was loaded, or the last."""
    best = trainer.state.best_global_step if trainer.args.load_best_model_at_end else None
    return best or trainer.state.global_step


def check_same_everywhere(*checksums: str) -> None:
    """Raise a ConfigurationError if the processes of a run found different files: an address did not answer all."""
    if broadcast_object_list(list(checksums)) != list(checksums):
        raise ConfigurationError(
            "The processes found different weights or data. Give all of them the same local files "
            "(--model_name_or_path, --data_file)."
        )


def peak_memory_gib() -> float:
    """Return the largest resident memory of this process so far, in GiB; on macOS, what it has now."""
    if sys.platform == "linux":
        # VmHWM is in KiB. The peak of `getrusage` is never below the memory of the process that started this one.
        return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 2**20
    memory = psutil.Process().memory_info()
    return getattr(memory, "peak_wset", memory.rss) / 2**30


def run_facts() -> dict:
    """Return what is needed to repeat a run elsewhere, and the memory that it took so far."""
    packages = ("torch", "transformers", "peft", "accelerate", "scikit-learn", "pandas")
    gpu = torch.cuda.is_available()
    return {
        "command": shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]),
        "versions": {"Python": platform.python_version(), **{name: metadata.version(name) for name in packages}},
        "hardware": torch.cuda.get_device_name() if gpu else f"{os.cpu_count()} CPU cores",
        "peak_memory_gib": peak_memory_gib(),
        "peak_gpu_memory_gib": torch.cuda.max_memory_allocated() / 2**30 if gpu else None,
    }


def messages_per_step(args: TrainingArguments) -> int:
    """Return how many messages, or windows of text, one optimizer step takes over all processes."""
    return args.train_batch_size * args.gradient_accumulation_steps * args.world_size


def describe_device(args: TrainingArguments) -> str:
    """Return device, number format and batch of a run in one line."""
    device = "CPU"
    if args.device.type != "cpu":
        module = torch.get_device_module(args.device)
        name = module.get_device_name(args.device) if hasattr(module, "get_device_name") else ""
        device = f"{args.device} {name}".strip()
    number_format = "bfloat16" if args.bf16 else "float16" if args.fp16 else "float32"
    processes = f" in {args.world_size} processes" if args.world_size > 1 else ""
    return f"{device}{processes}, {number_format}, {messages_per_step(args)} messages a step"


def run_script(
    run: Callable[[], object], args: TrainingArguments, outputs: Sequence[str], alone: Sequence[Path] = ()
) -> int:
    """Run a training script; return the exit code: 0, 1 after an error that is told in one line, 130 if interrupted.

    Args:
        outputs: names of what the script replaces when it is done, for the messages.
        alone: files and folders that no other process may write meanwhile.
    """
    logging.basicConfig(format="%(message)s")
    for name in ("gpt_classification_model", "gpt_pretraining", "text_classifier", "__main__"):
        logging.getLogger(name).setLevel(logging.INFO if args.process_index == 0 else logging.ERROR)
    # With several, Trainer would wrap the model in `nn.DataParallel`, which takes a batch for each and has no mixed
    # precision. A launcher starts a process for each.
    if args.n_gpu > 1:
        logger.info(
            "One of %d GPUs is used. To use all: torchrun --nproc_per_node %d %s …", args.n_gpu, args.n_gpu, sys.argv[0]
        )
        args._n_gpu = 1
    logger.info("Device: %s", describe_device(args))
    results, exit_code = " and ".join(outputs), 1
    try:
        with contextlib.ExitStack() as locks:
            for target in alone if args.process_index == 0 else ():
                locks.enter_context(exclusive(target))
            run()
        return 0
    except KeyboardInterrupt:
        exit_code = 130
        print(f"\nInterrupted; {results} are as they were.", file=sys.stderr)
    except Exception as error:
        told = describe_failure(error, f"{args.output_dir} or {results}")
        if told is None:
            raise
        print(f"Error: {told}", file=sys.stderr)
        if isinstance(error, (ArtifactError, ConfigurationError, BlockingIOError, FileNotFoundError)):
            return 1  # those errors come before anything is written
        if Path(outputs[0]).exists():
            print(f"{results} are whole: as they were, or new.", file=sys.stderr)
    if complete_checkpoints(args.output_dir):
        print("Go on with the same command and --resume_from_checkpoint last", file=sys.stderr)
    return exit_code


# ---------------------------------------------------------------------------- resuming a stopped run


# Beside the checkpoints: what a run that resumes one of them must have in common with the run that wrote them.
RUN_FILE = "run.json"

# Options of ours that a resumed run may set anew. Data and base model are compared by their checksums.
_MAY_DIFFER = {
    *("model_name_or_path", "fallback_model", "add_tfidf", "prepare_only"),
    *("data_file", "test_file", "data_source", "dataset_dir", "encoding", "no_header", "sheet"),
    *("text_column", "label_column"),
}


def checkpoint_to_resume(args: TrainingArguments) -> str | None:
    """Return the checkpoint that `--resume_from_checkpoint` names, or None; `last` is the one with the highest step.

    Raises:
        ConfigurationError: the checkpoint does not exist.
    """
    wanted = args.resume_from_checkpoint
    if wanted == "last":
        whole = complete_checkpoints(args.output_dir)
        if not whole:
            raise ConfigurationError(f"There is no checkpoint in {args.output_dir} to resume from.")
        wanted = str(max(whole, key=lambda folder: int(folder.name.rpartition("-")[2])))
    elif wanted is not None and not Path(wanted, "trainer_state.json").is_file():
        raise ConfigurationError(f"--resume_from_checkpoint {wanted} is not a checkpoint folder.")
    return wanted


def check_same_run(checkpoint: str | None, facts: dict) -> None:
    """Raise a ConfigurationError if a checkpoint is of a run with other data, another split or another model.

    Otherwise messages of the test split may have been trained on, or weights do not fit. `facts` has what both runs
    must have in common, by the name that a person knows it by.
    """
    if checkpoint is None:
        return
    file = Path(checkpoint).resolve().parent / RUN_FILE
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{checkpoint} cannot be resumed: {file.name} beside it cannot be read.") from error
    # As JSON has them: a tuple becomes a list.
    facts = json.loads(json.dumps(facts))
    if differ := [name for name in facts if before.get(name) != facts[name]]:
        told = "; ".join(f"{name} was {before.get(name)!r} and is now {facts[name]!r}" for name in differ)
        raise ConfigurationError(f"{checkpoint} belongs to another run: {told}. Start anew, or resume with the same.")


def begin_run(args: TrainingArguments, facts: dict) -> None:
    """Note the facts of a new run (see `check_same_run`), and delete the checkpoints of an earlier one."""
    if args.resume_from_checkpoint is None:
        # Otherwise `--resume_from_checkpoint last` would find them.
        for checkpoint in complete_checkpoints(args.output_dir):
            shutil.rmtree(checkpoint)
        write_json(facts, Path(args.output_dir, RUN_FILE))


def options_that_count(model_args: ModelArguments, data_args: DataArguments, args: TrainingArguments) -> dict:
    """Return the options that a run has to have in common with the run that it resumes; see `check_same_run`."""
    options = vars(model_args) | vars(data_args) | {"optim": args.optim.value, "seed": args.seed}
    return {f"--{name}": value for name, value in options.items() if name not in _MAY_DIFFER}
