"""The report of a run: metrics.json, the console's table and the model card show it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from huggingface_hub import EvalResult, ModelCardData
from scipy.stats import binomtest
from transformers import AutoConfig, Trainer

from text_classifier import cards
from text_classifier.metrics import percent, results_table
from text_classifier.sources.weights import BaseModel
from text_classifier.tfidf import TFIDF_MAX_CHARACTERS
from text_classifier.training.config import DataArguments, ModelArguments
from text_classifier.training.data import SPLITS, FoundMessages, in_conflict, read_again, splits_learned_from
from text_classifier.training.evaluation import BASELINE, Comparison
from text_classifier.training.runs import kept_step, run_facts

# The name of each tuning in titles.
TUNINGS = {
    "lora": "LoRA",
    "head": "new head",
    "last_block": "last block",
    "last_two_blocks": "last two blocks",
    "full": "all layers",
}

# How a report calls the extra messages, by the name of their split.
EXTRA_KINDS = {
    "modern": "modern messages, written for this project",
    "chinese": "Chinese messages, written for this project",
    "background": "sentences that are no messages, as ham",
}

LICENCES = {
    "gpt2": "mit",
    "openai-community/gpt2": "mit",
    "distilbert-base-uncased": "apache-2.0",
    "distilbert/distilbert-base-uncased": "apache-2.0",
    "sentence-transformers/all-MiniLM-L6-v2": "apache-2.0",
    "HuggingFaceTB/SmolLM2-135M-Instruct": "apache-2.0",
}


@dataclass(frozen=True)
class BaseFacts:
    """Which base model was used, where it came from, and which one was asked for."""

    requested: str
    name: str
    source: str
    sha256: str
    fallback_used: bool
    license: str | None
    layers: int | None
    """How many of its layers are used, the first ones; None: all."""


@dataclass(frozen=True)
class DataFacts:
    """Where the data came from, and how they were split."""

    name: str
    dataset: str
    source: str
    sha256: str
    protocol: str
    languages: list[str] | None
    """ISO 639-1 codes; None if nobody knows them."""
    description: str
    messages: int
    duplicates: int
    split_sizes: dict[str, int]


@dataclass(frozen=True)
class TrainingFacts:
    """What was trained, how many steps, and how long it took."""

    tuning: str
    trained_part: str
    max_length: int
    """Tokens of a message that the language model reads."""
    trainable_parameters: int
    total_parameters: int
    epochs: float
    steps: int
    best_step: int
    best_checkpoint: bool
    """Whether `best_step` is that of the best checkpoint, and not the last one."""
    train_seconds: float
    processes: int


@dataclass(frozen=True)
class Report(Comparison):
    """What a run did, and how good its result is on held-out messages."""

    command: str
    versions: dict[str, str]
    hardware: str
    total_seconds: float
    peak_memory_gib: float
    peak_gpu_memory_gib: float | None
    seed: int
    label_names: Sequence[str]
    base_model: BaseFacts
    data: DataFacts
    training: TrainingFacts
    table: str
    """The results that matter most, as a Markdown table."""
    accuracy: dict[str, float]
    """Share of held-out messages, at the natural ratio, that each model labels correctly."""
    summary: str
    """The same in one line."""
    warnings: list[str]
    """Where the language model is of no use; empty if it is of use."""

    @property
    def title(self) -> str:
        """The base model and what of it was trained."""
        return f"{self.base_model.name} + {self.training.trained_part}"


def describe_data(
    data_args: DataArguments, found: FoundMessages, used: pd.DataFrame, splits: dict[str, pd.DataFrame]
) -> DataFacts:
    """Return the facts of the data; `used` are the messages that were split, without those that were dropped."""
    counts = used["Label"].value_counts()
    classes = " and ".join(f"{counts[label]:,} {label}" for label in found.classes.names)
    sizes = " / ".join(f"{len(splits[split]):,}" for split in SPLITS)
    conflicts = 0 if data_args.protocol == "original" else int(in_conflict(found.messages).sum())
    duplicates = len(found.messages) - conflicts - len(used)
    parts = [f"{len(found.messages):,} messages, {duplicates:,} duplicates dropped before splitting"]
    if conflicts:
        parts.append(f"{conflicts:,} rows left out whose message has both labels")
    parts.append(f"of the rest {classes}, balanced 1:1 and split into {sizes}")
    if data_args.test_file:
        parts.append(f"tested on {Path(data_args.test_file).name}")
    labels = [label for name in splits_learned_from(data_args) for label in splits[name]["Label"]]
    if again := len(read_again(labels, data_args.minority_repeats)):
        parts.append(f"an epoch takes {again:,} messages of the smaller class again")
    left_out = len(splits["left_out_train"]) if data_args.minority_repeats else 0
    taken = [f"{left_out:,} messages of the larger class that balancing left out"] if left_out else []
    taken += [f"{len(splits[name]):,} {kind}" for name, kind in EXTRA_KINDS.items() if name in splits]
    if "feedback" in splits:
        count = len(splits["feedback"])
        more = len(found.extra["feedback"]) - count
        told = f" ({more:,} more stand in the held-out splits and are not trained on)" if more else ""
        taken.append(f"{count:,} message{'' if count == 1 else 's'} corrected in the chat{told}")
    parts += [f"an epoch also takes {one}" for one in taken]
    languages = ["en", "zh"] if "chinese" in found.extra else ["en"]
    return DataFacts(
        name=found.name,
        dataset=data_args.dataset,
        source=found.source,
        sha256=found.sha256,
        protocol=data_args.protocol,
        languages=None if data_args.data_file else languages,
        description="; ".join(parts) + ".",
        messages=len(found.messages),
        duplicates=duplicates,
        split_sizes={split: len(table) for split, table in splits.items()},
    )


def make_report(
    model_args: ModelArguments,
    base: BaseModel,
    label_names: Sequence[str],
    data: DataFacts,
    trainer: Trainer,
    compared: Comparison,
    total_seconds: float,
    train_seconds: float,
) -> Report:
    """Return the report of a run; `train_seconds` are a part of `total_seconds`."""
    requested = model_args.model_name_or_path
    layers = trainer.model.config.num_hidden_layers
    return Report(
        **run_facts(),
        total_seconds=total_seconds,
        seed=trainer.args.seed,
        label_names=label_names,
        base_model=BaseFacts(
            requested=requested,
            name=base.name,
            source=base.source,
            sha256=base.sha256,
            fallback_used=base.name not in (requested, str(Path(requested).expanduser().resolve())),
            license=LICENCES.get(base.name),
            layers=layers if layers < AutoConfig.from_pretrained(base.path).num_hidden_layers else None,
        ),
        data=data,
        training=TrainingFacts(
            tuning=model_args.tuning,
            trained_part=TUNINGS[model_args.tuning],
            max_length=trainer.processing_class.model_max_length,
            trainable_parameters=trainer.model.num_parameters(only_trainable=True),
            total_parameters=trainer.model.num_parameters(),
            epochs=trainer.state.epoch,
            steps=trainer.state.global_step,
            best_step=kept_step(trainer),
            best_checkpoint=trainer.args.load_best_model_at_end,
            train_seconds=train_seconds,
            processes=trainer.args.world_size,
        ),
        **vars(compared),
        table=table_of_results(compared),
        **summarise(compared, label_names),
    )


def summarise(compared: Comparison, label_names: Sequence[str]) -> dict:
    """Return `accuracy`, `summary` and `warnings` of a report."""
    models = {"language model alone": "after", "TF-IDF alone": BASELINE}
    if compared.saved != "after":
        models["both together"] = compared.saved
    metrics = {name: compared.results[model]["natural"] for name, model in models.items()}
    accuracy = {name: of_model["accuracy"] for name, of_model in metrics.items()}
    (negatives, positives) = (sum(row) for row in metrics["language model alone"]["confusion_matrix"])
    majority, label = max((negatives, label_names[0]), (positives, label_names[1]))
    warnings = []
    if accuracy["language model alone"] <= majority / (negatives + positives):
        warnings.append(f"The language model is not better than always answering {label}.")
    saved, tfidf = compared.results[compared.saved]["natural"], metrics["TF-IDF alone"]
    # Among some hundred messages a few more or less are chance, so the mean cross-entropy counts as well.
    if saved["accuracy"] <= tfidf["accuracy"] and saved["loss"] > 0.9 * tfidf["loss"]:
        warnings.append("The language model adds nothing to TF-IDF on these messages.")
    told = ", ".join(f"{name} {percent(share, 1)} %" for name, share in accuracy.items())
    return {
        "accuracy": accuracy,
        "summary": f"Labels that are right, of {negatives + positives:,} held-out messages: {told}.",
        "warnings": warnings,
    }


def table_of_results(compared: Comparison) -> str:
    """Return the results that matter most as a Markdown table of at most eight rows."""
    shown = {"before": ["test"], "after": ["train", "test", "natural"]}
    shown |= {name: ["test", "natural"] for name in (compared.saved, BASELINE) if name != "after"}
    return results_table({name: {split: compared.results[name][split] for split in shown[name]} for name in shown})


# ---------------------------------------------------------------------------- the model card


def model_card(report: Report, folder: Path) -> str:
    """Return the text of the README.md of the folder to save, which describes the model to people who find it.

    Its metadata is for the Hub: base model, licence, language, and the figures of the test split.
    """
    base, data, tuning = report.base_model, report.data, report.training.tuning
    test = report.results[report.saved]["test"]
    interval = binomtest(round(test["accuracy"] * test["n"]), test["n"]).proportion_ci(method="wilson")
    of_test = {"dataset_name": data.name, "dataset_type": data.dataset, "dataset_split": "test"}
    metadata = ModelCardData(
        base_model=base.name,
        library_name="peft" if tuning == "lora" else "transformers",
        pipeline_tag="text-classification",
        language=data.languages,
        license=base.license,
        tags=["text-classification", *(["lora"] if tuning == "lora" else [])],
        model_name=f"{base.name.split('/')[-1]}-{tuning}-{report.label_names[1]}",
        eval_results=[
            EvalResult("text-classification", metric_type=name, metric_value=round(test[name], 4), **of_test)
            for name in ("accuracy", "f1", "roc_auc")
            if test[name] is not None
        ],
    )
    return cards.fill(
        "trained",
        metadata,
        **vars(report),
        base=base,
        folder=folder.as_posix(),
        test=test,
        interval=[f"{100 * bound:.1f}" for bound in interval],
        tfidf_characters=TFIDF_MAX_CHARACTERS,
    )
