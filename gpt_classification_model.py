"""Fine-tune GPT-2 with LoRA into a classifier of short messages.

    python gpt_classification_model.py                                         # the default recipe
    python gpt_classification_model.py --num_train_epochs 1                    # one thing changed
    python gpt_classification_model.py recipes/sms_spam_gpt2_published.yaml    # another recipe
    python gpt_classification_model.py --prepare_only                          # only the splits, as CSV files
    torchrun --nproc_per_node 2 gpt_classification_model.py                    # two processes

A recipe (YAML) sets the options, and flags override it; `--help` lists them all. This file reads from top to bottom:
data, model, training, saving. The parts of each step are in `text_classifier/training/`.
"""

import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
from peft import LoraConfig, PeftModel
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch.utils.data import Dataset
from transformers import (
    DataCollatorWithPadding,
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    set_seed,
)

from text_classifier.classifier import Settings
from text_classifier.errors import ConfigurationError
from text_classifier.export import check_login
from text_classifier.files import write_json
from text_classifier.metrics import classification_metrics
from text_classifier.runtime import encode, limit_kernel_cache
from text_classifier.sources.weights import BaseModel, resolve_base_model_or_fallback
from text_classifier.tfidf import TfidfModel
from text_classifier.training import config, evaluation, models, runs
from text_classifier.training.charts import plot_metrics, reliability_page, run_labels
from text_classifier.training.config import DataArguments, FineTuningArguments, ModelArguments, parse_arguments
from text_classifier.training.data import HELD_OUT, SPLITS, Predictions, add_training_messages, clean, find_messages
from text_classifier.training.report import DataFacts, Report, describe_data, make_report, model_card
from text_classifier.training.saving import check_outputs, save_adapter, save_predictions, save_splits
from text_classifier.training.trainer import ClassificationTrainer, curve_messages, training_set, use_console

logger = logging.getLogger(__name__)

# ---------------------------------------------------------------------------- what is adapted

# The layers that LoRA adapts, for each architecture (`model_type` in the config): PEFT's own table, except for these
# four. An architecture that is not in the table gets all its linear layers.
LORA_TARGETS = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING | {
    "gpt2": ["c_attn", "c_proj"],  # `c_proj` is the name of a layer in attention and of one in the MLP
    # All linear layers: with q, k, v and o alone, all figures were a little worse.
    "llama": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "distilbert": ["q_lin", "v_lin"],
    "bert": ["query", "key", "value"],
}

# ---------------------------------------------------------------------------- data


def create_balanced_dataset(df: pd.DataFrame, seed: int = 123) -> pd.DataFrame:
    """Return as many messages of each label as the rarer label has (1:1); rows keep their index."""
    size = df["Label"].value_counts().min()
    groups = [group for _, group in df.groupby("Label", sort=True)]
    return pd.concat([group if len(group) == size else group.sample(size, random_state=seed) for group in groups])


def random_split(
    df: pd.DataFrame, train_frac: float = 0.7, validation_frac: float = 0.1, seed: int = 123
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Shuffle the messages and cut them into train, validation and test; test gets the rest."""
    shuffled = df.sample(frac=1, random_state=seed).reset_index(drop=True)
    train_end = int(len(shuffled) * train_frac)
    validation_end = train_end + int(len(shuffled) * validation_frac)
    return shuffled[:train_end], shuffled[train_end:validation_end], shuffled[validation_end:]


def make_splits(
    messages: pd.DataFrame, label_names: Sequence[str], seed: int = 123, test: pd.DataFrame | None = None
) -> dict[str, pd.DataFrame]:
    """Balance the messages and split them 70/10/20; split the left-out messages in the same way.

    Args:
        test: messages to test on that have a file of their own; then the 20 % are trained on.

    Returns:
        The tables `train`, `validation`, `test`, `left_out_train`, `left_out_validation` and `left_out_test`,
        each with the columns `Label` (0 or 1, in the order of `label_names`) and `Text`.

    Raises:
        ConfigurationError: a class has fewer than 10 messages.
    """
    counts = messages["Label"].value_counts()
    if counts.min() < 10:
        raise ConfigurationError(f"Each label needs at least 10 different messages; found {counts.to_dict()}.")
    balanced = create_balanced_dataset(messages, seed)
    left_out = messages.drop(balanced.index)
    parts = dict(zip(SPLITS, random_split(balanced, seed=seed), strict=True))
    parts |= dict(zip((f"left_out_{name}" for name in SPLITS), random_split(left_out, seed=seed), strict=True))
    if test is not None:
        for prefix in ("", "left_out_"):
            parts[f"{prefix}train"] = pd.concat([parts[f"{prefix}train"], parts[f"{prefix}test"]])
        parts["test"] = create_balanced_dataset(test, seed)
        parts["left_out_test"] = test.drop(parts["test"].index)
    ids = {name: number for number, name in enumerate(label_names)}
    return {name: part.assign(Label=part["Label"].map(ids).astype(int)) for name, part in parts.items()}


def load_splits(
    data_args: DataArguments, seed: int = 123
) -> tuple[dict[str, pd.DataFrame], tuple[str, str], DataFacts]:
    """Find the data, clean it and split it.

    Returns:
        The splits (see `make_splits`) and further training messages, the label names, a description for the report.

    Raises:
        ArtifactError, ConfigurationError: the data cannot be fetched, or it cannot be used.
    """
    found = find_messages(data_args)
    label_names = found.classes.names
    # The published figures have duplicates in training and test, so the original protocol keeps them.
    messages = found.messages if data_args.protocol == "original" else clean(found.messages)
    splits = make_splits(messages, label_names, seed, found.test)
    for name, extra in found.extra.items():
        splits = add_training_messages(splits, name, extra, label_names)
    data = describe_data(data_args, found, messages, splits)
    logger.info("Data: %s, from: %s. %s", data.name, data.source, data.description)
    return splits, label_names, data


class SpamDataset(Dataset):
    """The messages of one split, tokenised once.

    They are not padded here: a batch is padded to its longest message. That took 44 % of the time that padding all to
    120 tokens takes, and with messages of similar length in one batch it took 34 %.

    Args:
        csv_file: CSV file of the split, with the columns `Label` (0 or 1) and `Text`.
        max_length: number of tokens after which a message is cut; None keeps messages whole.

    Attributes:
        lengths: number of tokens of each message.
        max_length: number of tokens of the longest message.
    """

    def __init__(self, csv_file: str | Path, tokenizer: PreTrainedTokenizerBase, max_length: int | None = None):
        table = pd.read_csv(csv_file, keep_default_na=False, dtype={"Label": int, "Text": str})
        self.tokenizer = tokenizer
        self.labels = table["Label"].tolist()
        self.encoded = encode(table["Text"].tolist(), tokenizer, max_length)
        self.lengths = [len(tokens) for tokens in self.encoded["input_ids"]]
        self.max_length = max(self.lengths, default=0)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict:
        return {name: values[index] for name, values in self.encoded.items()} | {"labels": self.labels[index]}

    def __getitems__(self, indices: Sequence[int]) -> list[dict]:
        """Return the messages of one batch, padded to its longest, so that a plain `DataLoader` can stack them."""
        batch = DataCollatorWithPadding(self.tokenizer)([self[index] for index in indices])
        return [{name: values[row] for name, values in batch.items()} for row in range(len(indices))]


# ---------------------------------------------------------------------------- model


def build_model(
    base: BaseModel, tokenizer: PreTrainedTokenizerBase, label_names: Sequence[str], model_args: ModelArguments
) -> PeftModel | PreTrainedModel:
    """Load the base model with a new two-class head; wrap it in LoRA, or freeze the weights that are not trained."""
    layers = model_args.fallback_layers if base.name == model_args.fallback_model else None
    model, head = models.load_with_new_head(base, tokenizer, label_names, layers)
    if model_args.tuning == "lora":
        lora = LoraConfig(
            task_type="SEQ_CLS",
            r=model_args.lora_r,
            lora_alpha=model_args.lora_alpha,
            lora_dropout=model_args.lora_dropout,
            bias="none",
            target_modules=model_args.target_modules or LORA_TARGETS.get(model.config.model_type, "all-linear"),
            exclude_modules=models.modules_below(model, model_args.lora_layers),
            # The head has random weights, so it is trained in full and saved with the adapter.
            modules_to_save=head,
        )
        return models.wrap_in_lora(model, lora, base)
    if model_args.tuning != "full":
        models.freeze_all_but(model, model_args.tuning, head)
    return model


# ---------------------------------------------------------------------------- trainer


def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Return accuracy, precision, recall and F1 of logits of shape (n, 2) against labels of shape (n,)."""
    if not np.isfinite(prediction.predictions).all():
        raise ConfigurationError("The model's answers are no numbers any more. Try a smaller --learning_rate.")
    metrics = classification_metrics(prediction.label_ids, prediction.predictions.argmax(axis=-1))
    # Without both classes only the accuracy is defined.
    return {name: metrics[name] or 0.0 for name in ("accuracy", "precision", "recall", "f1")}


class AccuracyCallback(TrainerCallback):
    """After every evaluation, measure and log accuracy and loss on training messages too; by default on all of them."""

    def __init__(self, trainer: Trainer, dataset: Dataset | None = None):
        self.trainer = trainer
        self.dataset = trainer.train_dataset if dataset is None else dataset

    def on_evaluate(self, args, state, control, **kwargs):
        output = self.trainer.predict(self.dataset, metric_key_prefix="train")
        self.trainer.log({name: output.metrics[name] for name in ("train_accuracy", "train_loss")})


def build_trainer(
    model: PeftModel | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    datasets: dict[str, SpamDataset],
    data_args: DataArguments,
    args: FineTuningArguments,
) -> Trainer:
    """Build the `Trainer`, which also measures the accuracy on training messages."""
    trainer = ClassificationTrainer(
        model=model,
        args=args,
        train_dataset=training_set(datasets, data_args),
        eval_dataset=curve_messages(datasets, data_args, args, of="validation"),
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        compute_metrics=compute_metrics,
    )
    use_console(trainer)
    trainer.add_callback(AccuracyCallback(trainer, curve_messages(datasets, data_args, args, of="train")))
    return trainer


# ---------------------------------------------------------------------------- the run


def prepare(
    model_args: ModelArguments, data_args: DataArguments, args: FineTuningArguments
) -> tuple[dict[str, pd.DataFrame], tuple[str, str], DataFacts, BaseModel]:
    """Find data and base model, save the splits as CSV files, and check that the result can be saved."""
    with args.main_process_first(desc="data and base model"):
        splits, label_names, data = load_splits(data_args, args.seed)
        if args.local_process_index == 0:
            check_outputs(args.adapter_dir, args.metrics_pdf, Path(args.output_dir, "metrics.json"))
            save_splits(splits, Path(data_args.dataset_dir))
            logger.info("Splits: saved in %s/", data_args.dataset_dir)
        base = resolve_base_model_or_fallback(model_args.model_name_or_path, model_args.fallback_model)
    if Path(args.adapter_dir).resolve() == base.path.resolve():
        raise ConfigurationError(f"--adapter_dir {args.adapter_dir} is the base model's own folder.")
    runs.check_same_everywhere(base.sha256, data.sha256)
    logger.info("Base model: %s, from: %s. Class 1, the one to detect: %s", base.name, base.source, label_names[1])
    return splits, label_names, data, base


def prepare_only(data_args: DataArguments, args: FineTuningArguments) -> None:
    """Save the splits as CSV files, and stop there; no model is looked for."""
    config.check_limits(data_args, args)
    splits, _, _ = load_splits(data_args, args.seed)
    save_splits(splits, Path(data_args.dataset_dir))
    sizes = ", ".join(f"{name}.csv ({len(messages):,})" for name, messages in splits.items())
    print(f"Saved in {data_args.dataset_dir}/: {sizes}")


def train(model_args: ModelArguments, data_args: DataArguments, args: FineTuningArguments) -> Report | None:
    """Run a recipe from data to saved adapter and return the report that is saved as metrics.json.

    Of several processes the first one reports and saves; the others return None.
    """
    started = time.perf_counter()
    if args.push_to_hub:
        check_login()
    config.check_limits(model_args, data_args, args)
    config.check_training_arguments(args, config.METRICS)
    # Batches of all lengths need more kernels than the 1,024 that are kept by default.
    limit_kernel_cache(10_000)
    checkpoint, main_process = runs.checkpoint_to_resume(args), args.process_index == 0
    splits, label_names, data, base = prepare(model_args, data_args, args)
    facts = {"data (SHA-256)": data.sha256, "labels": label_names, "base model (SHA-256)": base.sha256}
    facts |= runs.options_that_count(model_args, data_args, args)
    runs.check_same_run(checkpoint, facts)

    set_seed(args.seed)
    tokenizer = models.load_tokenizer(base, data_args.max_length, data_args.normalize_text)
    reading = (tokenizer, tokenizer.model_max_length)
    datasets = {name: SpamDataset(Path(data_args.dataset_dir, f"{name}.csv"), *reading) for name in splits}
    model = build_model(base, tokenizer, label_names, model_args)
    if args.bf16 and model_args.tuning == "lora":
        models.store_frozen_in_bfloat16(model)
    logger.info("Trainable parameters: %s of %s", f"{model.num_parameters(True):,}", f"{model.num_parameters():,}")
    trainer = build_trainer(model, tokenizer, datasets, data_args, args)

    # TF-IDF takes seconds, so it comes first: bad data shows before hours of training. Only one process reports it.
    tfidf = evaluation.train_baseline(splits, data_args) if main_process else None
    logger.info("Evaluating before fine-tuning")
    held_out = {name: datasets[name] for name in HELD_OUT}
    before = evaluation.predict(trainer, held_out)
    if main_process:
        runs.begin_run(args, facts)
    outcome = trainer.train(resume_from_checkpoint=checkpoint)
    logger.info("Evaluating after fine-tuning")
    after = evaluation.predict(trainer, held_out | {"train": curve_messages(datasets, data_args, args, of="train")})
    if not main_process:
        return None
    baseline = evaluation.tfidf_predictions(tfidf, {name: splits[name] for name in HELD_OUT})
    joint = evaluation.SPAM_JOINT if data.dataset == "sms_spam" else evaluation.JOINT
    if not model_args.add_tfidf:
        tfidf = joint = None
    rate = args.target_false_positive_rate
    compared, predictions = evaluation.compare_models(before, after, baseline, joint, rate)
    logger.info("Decision threshold: %g", compared.decision_threshold)
    seconds = {"total_seconds": time.perf_counter() - started, "train_seconds": outcome.metrics["train_runtime"]}
    report = make_report(model_args, base, label_names, data, trainer, compared, **seconds)
    save(report, predictions, splits, tfidf, trainer, base)
    return report


def save(
    report: Report,
    predictions: dict[str, Predictions],
    splits: dict[str, pd.DataFrame],
    tfidf: TfidfModel | None,
    trainer: Trainer,
    base: BaseModel,
) -> None:
    """Save the adapter with its model card, the charts, all predictions on held-out messages, and the report."""
    args = trainer.args
    same = ("decision_threshold", "joint", "early_exit", "accuracy", "warnings")
    settings = Settings(**{name: getattr(report, name) for name in same}, languages=report.data.languages or [])
    adapter_dir = Path(args.adapter_dir)
    card = model_card(report, adapter_dir)
    save_adapter(trainer.model, trainer.processing_class, base, card, adapter_dir, settings, tfidf)
    pages = [reliability_page(report, predictions[report.saved])]
    plot_metrics(trainer.state.log_history, args.metrics_pdf, **run_labels(report, trainer), more_pages=pages)
    save_predictions(predictions, splits, Path(args.output_dir, "predictions.csv"))
    write_json(asdict(report), Path(args.output_dir, "metrics.json"))
    saved = f"{args.adapter_dir}/, {args.metrics_pdf}, and metrics.json and predictions.csv in {args.output_dir}/"
    warnings = "".join(f"\nWARNING: {warning}" for warning in report.warnings)
    print(f"\n{report.summary}{warnings}\n\n{report.table}\n\nSaved {saved}")


def main(argv: Sequence[str] | None = None) -> int:
    """Train with the options of the command line; return the exit code."""
    model_args, data_args, args = parse_arguments(sys.argv[1:] if argv is None else argv)
    if data_args.prepare_only:
        return runs.run_script(lambda: prepare_only(data_args, args), args, [f"the splits in {data_args.dataset_dir}"])
    alone = [Path(args.output_dir, "metrics.json"), Path(args.adapter_dir)]
    outputs = [args.adapter_dir, args.metrics_pdf]
    return runs.run_script(lambda: train(model_args, data_args, args), args, outputs, alone)


if __name__ == "__main__":
    sys.exit(main())
