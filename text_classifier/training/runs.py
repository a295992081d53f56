"""Helpers of every training run: checkpoints, several processes, memory, errors."""

import contextlib
import importlib.metadata
import logging
import os
import platform
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import torch
from accelerate.utils import broadcast_object_list
from transformers import Trainer, TrainingArguments

from text_classifier.errors import ArtifactError, ConfigurationError, describe_failure
from text_classifier.files import exclusive

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
    """Check that all processes of a distributed run found the same files.

    Raises:
        ConfigurationError: they found different files, because an address answered some of them and not the others.
    """
    if broadcast_object_list(list(checksums)) != list(checksums):
        raise ConfigurationError(
            "The processes found different weights or data. Give all of them the same local files "
            "(--model_name_or_path, --data_file)."
        )


def peak_memory_gib() -> float:
    """Return the largest resident memory of this process so far, in GiB."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset / 2**30
    if sys.platform == "linux":
        # VmHWM is in KiB. `getrusage` is not used here, because its peak is never below the memory of the process that
        # started this one.
        return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**30


def peak_memory() -> dict[str, float]:
    """Return the largest memory so far, in GiB: of this process, and on its GPU if there is one (CUDA, ROCm)."""
    peak = {"peak_memory_gib": peak_memory_gib()}
    if torch.cuda.is_available():
        peak["peak_gpu_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return peak


def run_facts() -> dict:
    """Return what is needed to repeat a run elsewhere: command, versions, hardware."""
    packages = ("torch", "transformers", "peft", "accelerate", "scikit-learn", "pandas")
    hardware = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"
    return {
        "command": shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]),
        "versions": {"Python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in packages},
        "hardware": hardware,
    }


def use_one_gpu(args: TrainingArguments) -> None:
    """Use one of several GPUs, unless a launcher started a process for each, and say so.

    Trainer would wrap the model in `nn.DataParallel`, which takes a batch for each GPU and has no mixed precision.
    """
    if args.n_gpu > 1:
        logger.info(
            "One of %d GPUs is used. To use all: torchrun --nproc_per_node %d %s …", args.n_gpu, args.n_gpu, sys.argv[0]
        )
        args._n_gpu = 1


def describe_device(args: TrainingArguments) -> str:
    """Return device, number format and batch of a run in one line."""
    device = "CPU"
    if args.device.type != "cpu":
        module = torch.get_device_module(args.device)
        name = module.get_device_name(args.device) if hasattr(module, "get_device_name") else ""
        device = f"{args.device} {name}".strip()
    number_format = "bfloat16" if args.bf16 else "float16" if args.fp16 else "float32"
    processes = f" in {args.world_size} processes" if args.world_size > 1 else ""
    batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    return f"{device}{processes}, {number_format}, {batch} messages a step"


def run_script(
    run: Callable[[], object], args: TrainingArguments, outputs: Sequence[str], alone: Sequence[Path] = ()
) -> int:
    """Run a training script, print errors without a traceback, and return the exit code.

    Args:
        run: the script's work.
        outputs: names of what the script replaces when it is done, for the messages.
        alone: files and folders that no other process may write meanwhile.

    Returns:
        0, 1 after an error, or 130 after an interruption.
    """
    logging.basicConfig(format="%(message)s")
    for name in ("gpt_classification_model", "gpt_pretraining", "text_classifier", "__main__"):
        logging.getLogger(name).setLevel(logging.INFO if args.process_index == 0 else logging.ERROR)
    use_one_gpu(args)
    logger.info("Device: %s", describe_device(args))
    results = " and ".join(outputs)
    try:
        with contextlib.ExitStack() as locks:
            for target in alone if args.process_index == 0 else ():
                locks.enter_context(exclusive(target))
            run()
    except (ArtifactError, ConfigurationError, BlockingIOError, FileNotFoundError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nInterrupted; {results} are as they were.", file=sys.stderr)
        print(_how_to_go_on(args), file=sys.stderr, end="")
        return 130
    except Exception as error:
        told = describe_failure(error, f"{args.output_dir} or {results}")
        if told is None:
            raise
        print(f"Error: {told}", file=sys.stderr)
        if Path(outputs[0]).exists():
            print(f"{results} are whole: as they were, or new.", file=sys.stderr)
        print(_how_to_go_on(args), file=sys.stderr, end="")
        return 1
    return 0


def _how_to_go_on(args: TrainingArguments) -> str:
    checkpoints = complete_checkpoints(args.output_dir)
    return "Go on with the same command and --resume_from_checkpoint last\n" if checkpoints else ""
