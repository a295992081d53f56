"""Resume a stopped run, and only the same run."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from transformers import TrainingArguments

from text_classifier.errors import ConfigurationError
from text_classifier.files import write_json
from text_classifier.sources.weights import BaseModel
from text_classifier.training.config import DataArguments, ModelArguments
from text_classifier.training.runs import complete_checkpoints

# Beside the checkpoints: what a run that resumes one of them must have in common with the run that wrote them.
RUN_FILE = "run.json"

# Options of ours that a resumed run may set anew. Data and base model are compared by their checksums.
_MAY_DIFFER = {
    *("model_name_or_path", "fallback_model", "add_tfidf", "prepare_only"),
    *("data_file", "test_file", "dataset", "data_source", "dataset_dir", "encoding", "no_header", "sheet"),
    *("text_column", "label_column"),
}


def checkpoint_to_resume(args: TrainingArguments) -> str | None:
    """Return the checkpoint folder that `--resume_from_checkpoint` names, or None if the option is not set.

    `last` means the complete checkpoint with the highest step in `output_dir`.

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
    """Check that a resumed run continues the run that wrote the checkpoint: same data, same split, same model.

    Otherwise messages of the test split may have been trained on, or weights do not fit.

    Args:
        checkpoint: folder of the checkpoint; None if no run is resumed.
        facts: what both runs must have in common, by the name that a person knows it by.

    Raises:
        ConfigurationError: a fact differs, or nothing is known of the earlier run.
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
    """Delete an earlier run's checkpoints in `output_dir`, so that `last` cannot mean them, and note the facts.

    A run that is resumed changes nothing.

    Args:
        facts: see `check_same_run`.
    """
    if args.resume_from_checkpoint is None:
        for checkpoint in complete_checkpoints(args.output_dir):
            shutil.rmtree(checkpoint)
        write_json(facts, Path(args.output_dir, RUN_FILE))


def facts_of_run(
    model_args: ModelArguments,
    data_args: DataArguments,
    args: TrainingArguments,
    label_names: Sequence[str],
    base: BaseModel,
    data: dict,
) -> dict:
    """Return what a run has to have in common with the run that it resumes; see `check_same_run`.

    Args:
        data: see `report.describe_data`.
    """
    facts = {"data (SHA-256)": data["sha256"], "labels": label_names, "base model (SHA-256)": base.sha256}
    options = vars(model_args) | vars(data_args) | {"optim": args.optim.value}
    return facts | {f"--{name}": value for name, value in options.items() if name not in _MAY_DIFFER}
