"""The report of a run: metrics.json, the console's table and the model card show it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from huggingface_hub import EvalResult, ModelCardData
from scipy.stats import binomtest
from transformers import AutoConfig, Trainer

from text_classifier import cards
from text_classifier.classifier import Joint
from text_classifier.metrics import percent, results_table
from text_classifier.sources.weights import BaseModel
from text_classifier.tfidf import TFIDF_MAX_CHARACTERS
from text_classifier.training.config import DataArguments
from text_classifier.training.data import SPLITS, FoundMessages, in_conflict
from text_classifier.training.evaluation import BASELINE, Comparison
from text_classifier.training.models import count_parameters
from text_classifier.training.runs import kept_step

# The name of each tuning in titles.
TUNINGS = {
    "lora": "LoRA",
    "head": "new head",
    "last_block": "last block",
    "last_two_blocks": "last two blocks",
    "full": "all layers",
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
class Report:
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
    saved: str
    """The model that the saved folder answers with, by its name in `results`."""
    joint: Joint | None
    early_exit: dict | None
    decision_threshold: float
    results: dict[str, dict[str, dict]]
    """Metrics by model and split; see `evaluation.evaluate`."""
    table: str
    """Those that matter most, as a Markdown table."""
    accuracy: dict[str, float]
    """Share of held-out messages, at the natural ratio, that each model labels correctly."""
    summary: str
    """The same in one line."""
    warnings: list[str]
    """Where the language model is worth nothing; empty if it is worth its weight."""

    @property
    def title(self) -> str:
        """The base model and what of it was trained."""
        return f"{self.base_model.name} + {self.training.trained_part}"


def describe_base(base: BaseModel, requested: str, layers: int) -> BaseFacts:
    """Return the facts of a base model.

    Args:
        requested: name of the base model in the recipe or flag.
        layers: how many of its layers are used.
    """
    all_layers = AutoConfig.from_pretrained(base.path).num_hidden_layers
    return BaseFacts(
        requested=requested,
        name=base.name,
        source=base.source,
        sha256=base.sha256,
        fallback_used=base.name not in (requested, str(Path(requested).expanduser().resolve())),
        license=LICENCES.get(base.name),
        layers=layers if layers < all_layers else None,
    )


def describe_data(
    data_args: DataArguments,
    found: FoundMessages,
    used: pd.DataFrame,
    splits: dict[str, pd.DataFrame],
    label_names: Sequence[str],
) -> DataFacts:
    """Return the facts of the data.

    Args:
        used: the messages that were split: all that were found, or those left after dropping duplicates.
    """
    counts = used["Label"].value_counts()
    classes = " and ".join(f"{counts[label]:,} {label}" for label in label_names)
    sizes = " / ".join(f"{len(splits[split]):,}" for split in SPLITS)
    conflicts = 0 if data_args.protocol == "original" else int(in_conflict(found.messages).sum())
    duplicates = len(found.messages) - conflicts - len(used)
    parts = [
        f"{len(found.messages):,} messages, {duplicates:,} duplicates dropped before splitting",
        *([f"{conflicts:,} rows left out whose message has both labels"] if conflicts else []),
        f"of the rest {classes}, balanced 1:1 and split into {sizes}",
        *([f"tested on {Path(data_args.test_file).name}"] if data_args.test_file else []),
        *_describe_left_out(data_args, len(splits["left_out_train"])),
        *_describe_extra(found, splits),
    ]
    return DataFacts(
        name=found.name,
        dataset="custom" if data_args.data_file else data_args.dataset,
        source=found.source,
        sha256=found.sha256,
        protocol=data_args.protocol,
        languages=_languages(data_args),
        description="; ".join(parts) + ".",
        messages=len(found.messages),
        duplicates=duplicates,
        split_sizes={split: len(table) for split, table in splits.items()},
    )


def _languages(data_args: DataArguments) -> list[str] | None:
    if data_args.data_file:
        return None
    return ["en", "zh"] if data_args.dataset == "sms_spam" and "chinese" in (data_args.extra_data or ()) else ["en"]


def _describe_left_out(data_args: DataArguments, left_out: int) -> list[str]:
    repeats = data_args.minority_repeats
    parts = [f"an epoch takes those of the smaller class {repeats} times"] if repeats > 1 else []
    if data_args.left_out_messages and left_out:
        parts.append(f"an epoch also takes {left_out:,} messages of the larger class that balancing left out")
    return parts


def _describe_extra(found: FoundMessages, splits: dict[str, pd.DataFrame]) -> list[str]:
    kinds = {
        "modern": "modern messages, written for this project",
        "chinese": "Chinese messages, written for this project",
        "background": "sentences that are no messages, as ham",
    }
    parts = [f"an epoch also takes {len(splits[name]):,} {kind}" for name, kind in kinds.items() if name in splits]
    if "feedback" in found.extra:
        taken, held_out = len(splits["feedback"]), len(found.extra["feedback"]) - len(splits["feedback"])
        corrections = f"{taken:,} message{'' if taken == 1 else 's'} corrected in the chat"
        more = f" ({held_out:,} more stand in the held-out splits and are not trained on)" if held_out else ""
        parts.append(f"an epoch also takes {corrections}{more}")
    return parts


def describe_training(trainer: Trainer, tuning: str, seconds: float) -> TrainingFacts:
    """Return the facts of a training that took so many seconds."""
    trainable, total = count_parameters(trainer.model)
    return TrainingFacts(
        tuning=tuning,
        trained_part=TUNINGS[tuning],
        max_length=trainer.processing_class.model_max_length,
        trainable_parameters=trainable,
        total_parameters=total,
        epochs=trainer.state.epoch,
        steps=trainer.state.global_step,
        best_step=kept_step(trainer),
        best_checkpoint=trainer.args.load_best_model_at_end,
        train_seconds=seconds,
        processes=trainer.args.world_size,
    )


def make_report(
    facts: dict,
    seed: int,
    label_names: Sequence[str],
    base: BaseFacts,
    data: DataFacts,
    training: TrainingFacts,
    compared: Comparison,
) -> Report:
    """Return the report of a run; see `runs.run_facts` for `facts`."""
    return Report(
        **facts,
        seed=seed,
        label_names=label_names,
        base_model=base,
        data=data,
        training=training,
        saved=compared.saved,
        joint=compared.joint,
        early_exit=compared.early_exit,
        decision_threshold=compared.threshold,
        results=compared.results,
        table=table_of_results(compared),
        **summarise(compared, label_names),
    )


def summarise(compared: Comparison, label_names: Sequence[str]) -> dict:
    """Say what each model alone and both together have on held-out messages, and where the language model fails.

    Returns:
        `accuracy`: share of held-out messages, at the natural ratio, that each model labels correctly; `summary`: the
        same in one line; `warnings`: sentences, none if the language model is worth its weight.
    """
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


def model_card(report: Report) -> str:
    """Return the text of the saved folder's README.md, which describes the model to people who find it."""
    test = report.results[report.saved]["test"]
    interval = binomtest(round(test["accuracy"] * test["n"]), test["n"]).proportion_ci(method="wilson")
    return cards.fill(
        "trained",
        _metadata(report, test),
        **vars(report),
        base=report.base_model,
        test=test,
        interval=[f"{100 * bound:.1f}" for bound in interval],
        tfidf_characters=TFIDF_MAX_CHARACTERS,
    )


def _metadata(report: Report, test: dict) -> ModelCardData:
    """Return the metadata that the Hub reads: base model, licence, language, and the figures of the test split."""
    base, data, tuning = report.base_model, report.data, report.training.tuning
    return ModelCardData(
        base_model=base.name,
        library_name="peft" if tuning == "lora" else "transformers",
        pipeline_tag="text-classification",
        language=data.languages,
        license=base.license,
        tags=["text-classification", *(["lora"] if tuning == "lora" else [])],
        model_name=f"{base.name.split('/')[-1]}-{tuning}-{report.label_names[1]}",
        eval_results=[
            EvalResult(
                task_type="text-classification",
                dataset_name=data.name,
                dataset_type=data.dataset,
                dataset_split="test",
                metric_type=metric,
                metric_value=round(test[metric], 4),
            )
            for metric in ("accuracy", "f1", "roc_auc")
            if test[metric] is not None
        ],
    )
