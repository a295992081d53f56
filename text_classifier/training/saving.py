"""Save the results of a run; an earlier result is replaced as a whole or not at all."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from peft import PeftModel
from peft.tuners.tuners_utils import replicate_layers
from peft.utils import CONFIG_NAME
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from text_classifier.classifier import Settings
from text_classifier.errors import ConfigurationError
from text_classifier.files import atomic_path, exchange_folder
from text_classifier.sources.weights import BaseModel
from text_classifier.tfidf import TfidfModel, save_tfidf
from text_classifier.training.data import HELD_OUT, Predictions


def check_outputs(folder: str, *files: str | Path) -> None:
    """Create missing parent folders of what will be saved.

    Raises:
        ConfigurationError: `folder` holds something other than an earlier result, which saving would replace.
    """
    target = Path(folder).resolve()
    if target.exists() and not (target.is_dir() and (not any(target.iterdir()) or is_saved_by_us(target))):
        raise ConfigurationError(
            f"{folder} exists and is no adapter or model of this project. Saving would replace it: name another folder."
        )
    for file in map(Path, (target, *files)):
        file.parent.mkdir(parents=True, exist_ok=True)


def is_saved_by_us(folder: Path) -> bool:
    """Return whether a folder is a PEFT adapter, or a whole model that was trained here."""
    try:
        return (folder / CONFIG_NAME).is_file() or Settings.load(folder).base_model is not None
    except (OSError, ValueError):
        return False


def save_folder(
    model: PeftModel | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    card: str,
    folder: Path,
    settings: Settings,
    tfidf: TfidfModel | None = None,
    **options,
) -> None:
    """Save model, config, tokenizer and model card as one folder, which replaces the previous one as a whole."""
    folder = folder.resolve()
    scratch = folder.with_name(f".{folder.name}.new")
    # A killed run may have left this folder behind.
    shutil.rmtree(scratch, ignore_errors=True)
    model.save_pretrained(scratch, **options)
    model.config.save_pretrained(scratch)
    tokenizer.save_pretrained(scratch)
    settings.save(scratch)  # their base model tells `check_outputs` later that it may replace the folder
    if tfidf:
        save_tfidf(tfidf, scratch)
    (scratch / "README.md").write_text(card, encoding="utf-8")
    exchange_folder(scratch, folder)


def save_adapter(
    model: PeftModel | PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    base: BaseModel,
    card: str,
    adapter_dir: Path,
    settings: Settings | None = None,
    tfidf: TfidfModel | None = None,
) -> None:
    """Save a trained model and what is known of its base with `save_folder`; without an adapter it is saved whole."""
    # A message that spells out a special token is ordinary text for other programs too, as in `runtime.encode`.
    # transformers saves the attributes that `init_kwargs` names.
    tokenizer.init_kwargs["split_special_tokens"] = tokenizer.split_special_tokens = True
    options = {}
    if isinstance(model, PeftModel):
        # Save the Hub's name and not this machine's cache path, so that plain PEFT loads the adapter anywhere.
        adapter_config = model.peft_config["default"]
        adapter_config.base_model_name_or_path = base.name
        # PEFT keeps a set, whose order changes; sorted, equal runs save equal files.
        adapter_config.target_modules = sorted(adapter_config.target_modules)
        adapter_config.layer_replication = kept_layers(base.path, model.config.num_hidden_layers)
        options["save_embedding_layers"] = False
    source = {"name": base.name, "source": base.source, "sha256": base.sha256}
    settings = replace(settings or Settings(), base_model=source)
    save_folder(model, tokenizer, card, adapter_dir, settings, tfidf, **options)


def kept_layers(base_dir: Path, layers: int) -> list[tuple[int, int]] | None:
    """Return the `layer_replication` with which PEFT takes only the first layers of a base model.

    PEFT loads the base with the base's own config, so all its layers would answer otherwise, without a warning. The
    result is None if `layers` are all of them, or if PEFT cannot choose layers of this architecture.
    """
    config = AutoConfig.from_pretrained(base_dir)
    if layers == config.num_hidden_layers:
        return None
    # PEFT knows what it can do; a model without values is enough to ask.
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config)
    try:
        replicate_layers(model, [(0, layers)])
    except ValueError:
        return None
    return [(0, layers)]


def save_predictions(predictions: dict[str, Predictions], splits: dict[str, pd.DataFrame], path: Path) -> None:
    """Save the held-out messages as a CSV, with the probability of class 1 that each model gave them, by its name."""
    tables = [
        splits[split].assign(Split=split, **{name: of_model[split][1] for name, of_model in predictions.items()})
        for split in HELD_OUT
    ]
    with atomic_path(path) as scratch:
        pd.concat(tables).to_csv(scratch, index=False, float_format="%.6f", quoting=csv.QUOTE_NONNUMERIC)


def save_splits(splits: dict[str, pd.DataFrame], folder: Path) -> None:
    """Save each split as a CSV with the columns `Label` (0 or 1) and `Text`."""
    for name, messages in splits.items():
        with atomic_path(folder / f"{name}.csv") as scratch:
            # Every text is quoted, because a lone carriage return would end the row otherwise.
            messages.to_csv(scratch, index=False, quoting=csv.QUOTE_NONNUMERIC)
