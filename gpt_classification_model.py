"""Fine-tune GPT-2 with LoRA into a classifier of short messages.

    python gpt_classification_model.py                                         # the default recipe
    python gpt_classification_model.py --num_train_epochs 1                    # one thing changed
    python gpt_classification_model.py recipes/sms_spam_gpt2_published.yaml    # another recipe
    torchrun --nproc_per_node 2 gpt_classification_model.py                    # two processes

A recipe (YAML) sets the defaults, flags override it, `--help` lists them all.
"""

import copy
import csv
import logging
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch.utils.data import ConcatDataset, Dataset, Sampler, Subset
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    set_seed,
)

from text_classifier.errors import ConfigurationError
from text_classifier.feedback import read_feedback
from text_classifier.files import atomic_path, file_sha256, write_json
from text_classifier.inference import encode, quiet_loading
from text_classifier.sources.datasets import read_sms_spam, resolve_imdb, resolve_sms_spam
from text_classifier.sources.weights import BaseModel, resolve_base_model_or_fallback
from text_classifier.training.batches import EXTRA_SPLITS, FreshSampler, TextNoise, TokenDropout, length_order
from text_classifier.training.charts import plot_metrics, plot_reliability
from text_classifier.training.config import DataArguments, FineTuningArguments, ModelArguments, parse_arguments
from text_classifier.training.data import (
    add_training_messages,
    drop_duplicates,
    label_names_of,
    read_messages,
    read_present_day_messages,
)
from text_classifier.training.evaluation import (
    LANGUAGE_MODEL_WEIGHT,
    predict,
    predict_with_tfidf,
    predictions_together,
    score,
)
from text_classifier.training.models import (
    BLOCKS,
    FUSED_ACTIVATIONS,
    freeze_all_but,
    load_tokenizer,
    store_frozen_in_bfloat16,
)
from text_classifier.training.report import LICENCES, TUNINGS, model_card, results_table
from text_classifier.training.runs import (
    check_same_everywhere,
    checkpoint_to_resume,
    kept_step,
    peak_memory_gib,
    remove_old_checkpoints,
    run_facts,
    run_script,
)
from text_classifier.training.saving import check_outputs, save_adapter, save_predictions

logger = logging.getLogger(__name__)

# What LoRA adapts in each architecture (its config's `model_type`) and which new layers are trained in
# full. GPT-2's `c_proj` names the projections of both attention and MLP; its layers are Conv1D, which
# store weights transposed.
LORA_TARGETS = {
    "gpt2": {"target_modules": ["c_attn", "c_proj"], "modules_to_save": ["score"], "fan_in_fan_out": True},
    "llama": {
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        "modules_to_save": ["score"],
    },
    "distilbert": {"target_modules": ["q_lin", "v_lin"], "modules_to_save": ["pre_classifier", "classifier"]},
    "bert": {"target_modules": ["query", "key", "value"], "modules_to_save": ["classifier"]},
}


SPLITS = ("train", "validation", "test")


# Accuracy on training messages is measured on so many at most: predicting all of them at every evaluation
# takes a good part of a run, and with 35,000 reviews longer than training on them.
TRAIN_ACCURACY_MESSAGES = 256

# ---------------------------------------------------------------------------- configuration


# ---------------------------------------------------------------------------- data


def create_balanced_dataset(df: pd.DataFrame, seed: int = 123) -> pd.DataFrame:
    """Return as many messages of each label as the rarer label has (1:1), keeping the index.

    Args:
        df: column `Label` with two labels.
        seed: of the draw from the larger class.
    """
    size = df["Label"].value_counts().min()
    groups = [group for _, group in df.groupby("Label", sort=True)]
    return pd.concat([group if len(group) == size else group.sample(size, random_state=seed) for group in groups])


def random_split(
    df: pd.DataFrame, train_frac: float = 0.7, validation_frac: float = 0.1, seed: int = 123
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Shuffle and cut into train, validation and test; test gets what the two fractions leave."""
    shuffled = df.sample(frac=1, random_state=seed).reset_index(drop=True)
    train_end = int(len(shuffled) * train_frac)
    validation_end = train_end + int(len(shuffled) * validation_frac)
    return shuffled[:train_end], shuffled[train_end:validation_end], shuffled[validation_end:]


def make_splits(messages: pd.DataFrame, label_names: Sequence[str], seed: int = 123) -> dict[str, pd.DataFrame]:
    """Balance and split 70/10/20, and split in the same way what balancing left out.

    Returns:
        `train`, `validation`, `test` and `left_out_train`, `left_out_validation`, `left_out_test`, each
        with `Label` (0/1 in the order of `label_names`) and `Text`.

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
    ids = {name: number for number, name in enumerate(label_names)}
    return {name: part.assign(Label=part["Label"].map(ids).astype(int)) for name, part in parts.items()}


def load_splits(data_args: DataArguments) -> tuple[dict[str, pd.DataFrame], tuple[str, str], dict]:
    """Find the data, prepare and split it.

    Returns:
        The splits (see `make_splits`), the label names, and a description for the report.

    Raises:
        ArtifactError, ConfigurationError: the data cannot be had, or cannot be used.
    """
    original = data_args.protocol == "original"
    if data_args.data_file:
        path = Path(data_args.data_file)
        messages = read_messages(path, data_args.text_column, data_args.label_column)
        name, source, sha256 = path.name, "local file", file_sha256(path)
    elif data_args.dataset == "imdb":
        file = resolve_imdb(Path(data_args.dataset_dir))
        messages = read_messages(file.path, "text", "label")
        name, source, sha256 = "IMDB reviews", file.source, file.sha256
    else:
        file = resolve_sms_spam(Path(data_args.dataset_dir), data_args.data_source)
        # The published figures were made with pandas' default quoting.
        messages = read_sms_spam(file.path, csv.QUOTE_MINIMAL if original else csv.QUOTE_NONE)
        name, source, sha256 = "SMS Spam Collection", file.source, file.sha256
    label_names = label_names_of(messages["Label"], data_args.positive_label)
    different = messages if original else drop_duplicates(messages)
    splits = make_splits(different, label_names, data_args.split_seed)
    counts = different["Label"].value_counts()
    classes = " and ".join(f"{counts[label]:,} {label}" for label in label_names)
    sizes = " / ".join(f"{len(splits[split]):,}" for split in SPLITS)
    description = (
        f"{len(messages):,} messages, {len(messages) - len(different):,} duplicates dropped before splitting; "
        f"of the rest {classes}, balanced 1:1 and split into {sizes}"
    )
    left_out = len(splits["left_out_train"])
    if data_args.majority == "fresh" and left_out:
        description += (
            f"; every epoch draws its messages of the larger class anew from {left_out:,} more that balancing left out"
        )
    if data_args.majority == "all" and left_out:
        description += f"; every epoch also takes {left_out:,} messages of the larger class that balancing left out"
    if data_args.majority == "all" and left_out and data_args.minority_repeats > 1:
        description += f" and those of the smaller class {data_args.minority_repeats} times"
    if data_args.present_day_messages and data_args.dataset == "sms_spam" and not data_args.data_file:
        splits = add_training_messages(splits, "present_day", read_present_day_messages(), label_names)
        share = f"{EXTRA_SPLITS['present_day']:.0%} of {len(splits['present_day']):,}"
        description += f"; every epoch also takes {share} messages of today, written for this project"
    if data_args.feedback_file:
        try:
            feedback = drop_duplicates(read_feedback(Path(data_args.feedback_file)), keep="last")
        except ValueError as error:
            raise ConfigurationError(str(error)) from error
        splits = add_training_messages(splits, "feedback", feedback, label_names)
        used = len(splits["feedback"])
        description += (
            f"; {used:,} messages corrected in the chat are seen in every epoch "
            f"({len(feedback) - used:,} more stand in the held-out splits and are not)"
        )
    return (
        splits,
        label_names,
        {
            "name": name,
            "dataset": "custom" if data_args.data_file else data_args.dataset,
            "source": source,
            "sha256": sha256,
            "protocol": data_args.protocol,
            "max_length": data_args.max_length,
            "description": description + ".",
            "messages": len(messages),
            "duplicates": len(messages) - len(different),
            "split_sizes": {split: len(table) for split, table in splits.items()},
        },
    )


class SpamDataset(Dataset):
    """A split's CSV, tokenised once; padding is left to the batch.

    Args:
        csv_file: the split.
        tokenizer: of the base model.
        max_length: cut messages after this many tokens; None keeps them whole.
        text_column, label_column: of the file; labels are 0 or 1.

    Attributes:
        texts: the messages.
        lengths: number of tokens of each message.
        max_length: the longest of them.
    """

    def __init__(
        self,
        csv_file: str | Path,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int | None = None,
        text_column: str = "Text",
        label_column: str = "Label",
    ):
        table = pd.read_csv(csv_file, keep_default_na=False, dtype={label_column: int, text_column: str})
        self.labels = table[label_column].tolist()
        self.texts = table[text_column].tolist()
        self.encoded = encode(self.texts, tokenizer, max_length)
        self.lengths = [len(tokens) for tokens in self.encoded["input_ids"]]
        self.max_length = max(self.lengths, default=0)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict:
        return {name: values[index] for name, values in self.encoded.items()} | {"labels": self.labels[index]}


# ---------------------------------------------------------------------------- model


def build_model(
    base: BaseModel,
    tokenizer: PreTrainedTokenizerBase,
    label_names: Sequence[str],
    model_args: ModelArguments,
) -> PeftModel | PreTrainedModel:
    """Load the base with a new two-class head, wrap it in LoRA or choose which of its weights are trained.

    Raises:
        ConfigurationError: the architecture is not in `LORA_TARGETS` or `BLOCKS` and no `--target_modules`
            are given, or no layers are asked for, or the base reads fewer tokens than asked for.
    """
    config = AutoConfig.from_pretrained(
        base.path,
        num_labels=2,
        id2label=dict(enumerate(label_names)),
        label2id={name: number for number, name in enumerate(label_names)},
        pad_token_id=tokenizer.pad_token_id,
    )
    # A deep copy: PEFT adds names of its own to the list of modules to save.
    targets = copy.deepcopy(LORA_TARGETS.get(config.model_type, {"modules_to_save": ["score", "classifier"]}))
    if model_args.target_modules:
        targets["target_modules"] = model_args.target_modules
    if model_args.tuning == "lora" and "target_modules" not in targets:
        raise ConfigurationError(
            f"No LoRA layers are listed for the architecture {config.model_type!r} "
            f"(only for {', '.join(LORA_TARGETS)}). Name them with --target_modules."
        )
    if model_args.tuning not in ("lora", "full") and config.model_type not in BLOCKS:
        raise ConfigurationError(
            f"The blocks of the architecture {config.model_type!r} are not listed (only those of {', '.join(BLOCKS)}). "
            "Use --tuning lora or full."
        )
    if (layers := model_args.num_hidden_layers) is not None:
        if layers < 1:
            raise ConfigurationError(f"--num_hidden_layers {layers}: at least one is needed.")
        config.num_hidden_layers = min(layers, config.num_hidden_layers)
    if (activation := getattr(config, "activation_function", None)) in FUSED_ACTIVATIONS:
        config.activation_function = FUSED_ACTIVATIONS[activation]
    if tokenizer.model_max_length > (limit := getattr(config, "max_position_embeddings", float("inf"))):
        raise ConfigurationError(f"{base.name} reads at most {limit} tokens; lower --max_length.")
    # On a CPU and in batches of short messages, the fused kernel's backward pass is the slower one.
    attention = None if torch.accelerator.is_available() else "eager"
    try:
        with quiet_loading():
            model, loading = AutoModelForSequenceClassification.from_pretrained(
                base.path,
                config=config,
                dtype=torch.float32,
                attn_implementation=attention,
                output_loading_info=True,
            )
            if model_args.tuning == "lora":
                lora = LoraConfig(
                    task_type="SEQ_CLS",
                    r=model_args.lora_r,
                    lora_alpha=model_args.lora_alpha,
                    lora_dropout=model_args.lora_dropout,
                    bias="none",
                    **targets,
                )
                model = get_peft_model(model, lora)
            elif model_args.tuning != "full":
                freeze_all_but(model, model_args.tuning, targets["modules_to_save"])
    except (ValueError, RuntimeError) as error:
        raise ConfigurationError(f"{base.name} cannot be tuned: {error}") from error
    if missing := [name for name in loading["missing_keys"] if name.split(".")[0] not in targets["modules_to_save"]]:
        raise ConfigurationError(f"{base.name} lacks weights of its architecture: {', '.join(sorted(missing)[:5])} …")
    return model


# ---------------------------------------------------------------------------- training


def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Return the accuracy of logits of shape (n, 2) against labels of shape (n,)."""
    return {"accuracy": float((prediction.predictions.argmax(axis=-1) == prediction.label_ids).mean())}


class AccuracyCallback(TrainerCallback):
    """After every evaluation, also measure and log the accuracy on training messages.

    Args:
        trainer: the trainer it is added to.
        dataset: the messages to measure on; by default the trainer's whole training set.
    """

    def __init__(self, trainer: Trainer, dataset: Dataset | None = None):
        self.trainer = trainer
        self.dataset = dataset if dataset is not None else trainer.train_dataset

    def on_evaluate(self, args, state, control, **kwargs):
        output = self.trainer.predict(self.dataset, metric_key_prefix="train")
        self.trainer.log({"train_accuracy": output.metrics["train_accuracy"]})


class ClassificationTrainer(Trainer):
    """`Trainer` that draws training batches from `train_sampler` and evaluates sorted by length."""

    train_sampler: Sampler[int]

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int]:
        return self.train_sampler

    def _get_eval_sampler(self, eval_dataset: Dataset) -> list[int]:
        return length_order(eval_dataset)


def build_trainer(
    model: PeftModel | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    datasets: dict[str, SpamDataset],
    data_args: DataArguments,
    args: FineTuningArguments,
) -> Trainer:
    """Put model, data and arguments into a `Trainer` with the accuracy callback.

    Checkpoints are compared at the ratio of classes in the data where all of the larger class is trained on:
    on all of its validation messages, too.
    """
    train = datasets["train"]
    at_natural_ratio = data_args.majority == "all"
    drawn_from = [train] if data_args.majority == "same" else [train, datasets["left_out_train"]]
    counted_parts = drawn_from if at_natural_ratio else [train]
    counted = [label for part in counted_parts for label in part.labels]
    pools = [label for part in drawn_from for label in part.labels]
    draws = {label: counted.count(label) for label in sorted(set(counted))}
    if at_natural_ratio:
        smaller = min(draws, key=draws.get)
        draws[smaller] = min(draws[smaller] * data_args.minority_repeats, max(draws.values()))
    extra = {name: datasets[name] for name in EXTRA_SPLITS if name in datasets}
    for name, part in extra.items():
        pools_of_part = [f"{name} {label}" for label in part.labels]
        draws |= {pool: math.ceil(size * EXTRA_SPLITS[name]) for pool, size in Counter(pools_of_part).items()}
        pools += pools_of_part
    parts = [*drawn_from, *extra.values()]
    sampler = FreshSampler(
        pools=pools,
        lengths=[length for part in parts for length in part.lengths],
        draws=draws,
        group_size=args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        seed=args.seed,
    )
    texts = [text for part in parts for text in part.texts]
    validation = [datasets["validation"], *([datasets["left_out_validation"]] if at_natural_ratio else [])]
    noisy = TextNoise(ConcatDataset(parts), texts, data_args.text_noise, tokenizer, sampler, args.seed)
    trainer = ClassificationTrainer(
        model=model,
        args=args,
        train_dataset=TokenDropout(noisy, data_args.token_dropout, tokenizer, sampler, args.seed),
        eval_dataset=ConcatDataset(validation),
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
        compute_metrics=compute_metrics,
    )
    trainer.train_sampler = sampler
    sample = torch.randperm(len(counted), generator=torch.Generator().manual_seed(args.seed))
    measured = Subset(ConcatDataset(counted_parts), sample[:TRAIN_ACCURACY_MESSAGES].tolist())
    trainer.add_callback(AccuracyCallback(trainer, measured))
    if args.early_stopping_patience is not None:
        # What is stopped after evaluations that were no better has to go back to the best.
        args.load_best_model_at_end = True
        trainer.add_callback(EarlyStoppingCallback(args.early_stopping_patience))
    return trainer


# ---------------------------------------------------------------------------- evaluation


# ---------------------------------------------------------------------------- saving


# ---------------------------------------------------------------------------- the run


def train(
    model_args: ModelArguments,
    data_args: DataArguments,
    args: FineTuningArguments,
    dataset_class: type[SpamDataset] = SpamDataset,
    load_tokenizer: Callable[[BaseModel, int, bool], PreTrainedTokenizerBase] = load_tokenizer,
) -> dict:
    """Run a recipe from data to saved adapter and return the report that is saved as metrics.json.

    Args:
        dataset_class: tokenises a split; benchmarks give others.
        load_tokenizer: the same.
    """
    started = time.perf_counter()
    # For every new shape of a matrix product oneDNN, which multiplies on CPUs, prepares a program. It keeps 1,024 of
    # them, fewer than batches of all lengths need, and reads how many it may keep at its first product.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "10000")
    checkpoint = checkpoint_to_resume(args)
    with args.main_process_first(desc="data and base model"):
        splits, label_names, data = load_splits(data_args)
        csv_files = {name: Path(data_args.dataset_dir, f"{name}.csv") for name in splits}
        columns = {"Text": data_args.text_column, "Label": data_args.label_column}
        if args.local_process_index == 0:
            check_outputs(args.adapter_dir, args.metrics_pdf, Path(args.output_dir, "metrics.json"))
            for name, csv_file in csv_files.items():
                with atomic_path(csv_file) as scratch:
                    # Every text is quoted: a lone carriage return would end the row otherwise.
                    splits[name].rename(columns=columns).to_csv(scratch, index=False, quoting=csv.QUOTE_NONNUMERIC)
        base = resolve_base_model_or_fallback(model_args.model_name_or_path, model_args.fallback_model)
    if Path(args.adapter_dir).resolve() == base.path.resolve():
        raise ConfigurationError(f"--adapter_dir {args.adapter_dir} is the base model's own folder.")
    check_same_everywhere(base.sha256, data["sha256"])
    logger.info("Data: %s (%s). %s", data["name"], data["source"], data["description"])
    logger.info("Base model: %s (%s)", base.name, base.source)
    logger.info("Class 1, the one to detect: %s", label_names[1])

    set_seed(args.seed)
    tokenizer = load_tokenizer(base, data_args.max_length, data_args.normalize_text)
    datasets = {
        name: dataset_class(file, tokenizer, data_args.max_length, data_args.text_column, data_args.label_column)
        for name, file in csv_files.items()
    }
    model = build_model(base, tokenizer, label_names, model_args)
    if args.bf16 and model_args.tuning == "lora":
        store_frozen_in_bfloat16(model)
    layers, base_layers = model.config.num_hidden_layers, AutoConfig.from_pretrained(base.path).num_hidden_layers
    total_parameters = sum(weights.numel() for weights in model.parameters())
    trainable_parameters = sum(weights.numel() for weights in model.parameters() if weights.requires_grad)
    logger.info("Trainable parameters: %s of %s", f"{trainable_parameters:,}", f"{total_parameters:,}")
    trainer = build_trainer(model, tokenizer, datasets, data_args, args)

    # The rivals first: whatever is wrong with the data shows before hours of training. One process alone reports them.
    rivals, partner = predict_with_tfidf(splits, data_args.majority) if args.process_index == 0 else ({}, None)
    if not model_args.add_tfidf:
        partner = None
    logger.info("Evaluating before fine-tuning")
    before = predict(trainer, datasets)
    if args.process_index == 0:
        remove_old_checkpoints(args)
    outcome = trainer.train(resume_from_checkpoint=checkpoint)
    logger.info("Evaluating after fine-tuning")
    after = predict(trainer, datasets)
    # The row of the table that is what the saved folder answers.
    saved, weight = ("after + TF-IDF", LANGUAGE_MODEL_WEIGHT) if partner else ("after", None)
    everyone = {"before": before, "after": after}
    if partner:
        *_, of_partner = rivals.values()
        everyone[saved] = predictions_together(after, of_partner, weight)
    everyone |= rivals
    results, thresholds = {}, {}
    for name, predictions in everyone.items():
        rows, thresholds[name] = score(name, predictions, None if name == "before" else args.target_false_positive_rate)
        results |= rows
    threshold = thresholds[saved]
    logger.info("Decision threshold: %g", threshold)

    state, requested = trainer.state, model_args.model_name_or_path
    report = {
        **run_facts(),
        "seed": args.seed,
        "label_names": list(label_names),
        "base_model": {
            "requested": requested,
            "name": base.name,
            "source": base.source,
            "sha256": base.sha256,
            "fallback_used": base.name not in (requested, str(Path(requested).expanduser().resolve())),
            "license": LICENCES.get(base.name),
            "layers": layers if layers < base_layers else None,
        },
        "data": data,
        "training": {
            "tuning": model_args.tuning,
            "trained_part": TUNINGS[model_args.tuning],
            "trainable_parameters": trainable_parameters,
            "total_parameters": total_parameters,
            "epochs": state.epoch,
            "steps": state.global_step,
            "best_step": kept_step(trainer),
            "best_checkpoint": args.load_best_model_at_end,
            "train_seconds": outcome.metrics["train_runtime"],
            "processes": args.world_size,
        },
        "decision_threshold": threshold,
        "saved": saved,
        "language_model_weight": weight,
        "results": results,
    }
    if args.process_index == 0:
        report["table"] = results_table(results)
        report["total_seconds"] = time.perf_counter() - started
        report["peak_memory_gib"] = peak_memory_gib()
        card = model_card(report)
        settings = {"decision_threshold": threshold, "language_model_weight": weight}
        save_adapter(model, tokenizer, base, card, Path(args.adapter_dir), partner, **settings)
        trained = f"{base.name} + {TUNINGS[model_args.tuning]}"
        title = f"{trained} on {data['name']}"
        seen = ("Examples seen", args.train_batch_size * args.gradient_accumulation_steps * args.world_size)
        best_step = report["training"]["best_step"] if args.load_best_model_at_end else None
        labels, probabilities = (
            np.concatenate(pair) for pair in zip(everyone[saved]["test"], everyone[saved]["left_out_test"], strict=True)
        )
        reliability_title = f"Held-out messages, {trained}{' + TF-IDF' if partner else ''} on {data['name']}"
        reliability = plot_reliability(labels, probabilities, label_names[1], reliability_title)
        plot_metrics(
            state.log_history, args.metrics_pdf, title, best_step, args.plot_over, seen, more_pages=[reliability]
        )
        save_predictions(everyone, splits, Path(args.output_dir, "predictions.csv"))
        write_json(report, Path(args.output_dir, "metrics.json"))
        print(f"\n{report['table']}\n")
        print(
            f"Saved {args.adapter_dir}/, {args.metrics_pdf}, and metrics.json and predictions.csv in {args.output_dir}/"
        )
    return report


def main(argv: Sequence[str] | None = None, **pieces) -> int:
    """Train as the command line says; return the exit code.

    Args:
        pieces: what `train` is to use instead of its own.
    """
    model_args, data_args, args = parse_arguments(sys.argv[1:] if argv is None else argv)
    outputs = f"{args.adapter_dir} and {args.metrics_pdf}"
    return run_script(lambda: train(model_args, data_args, args, **pieces), args, outputs)


if __name__ == "__main__":
    sys.exit(main())
