"""Merge an adapter into its base model once, and keep the result for the next start.

Merging takes longer than the rest of loading, and it needs PEFT, which takes long to import.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel

from text_classifier.files import atomic_path, file_sha256
from text_classifier.sources.registry import cache_dir
from text_classifier.sources.weights import resolve_base_model

# The names that PEFT gives its files; importing PEFT for them would take time at every start.
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

_KEPT_MODELS = 3  # merged models in the cache; one of the default recipe takes 142 MB in bfloat16


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """Hide two messages that worry people although nothing is wrong, and progress bars that last less than a second.

    transformers reports that the base model lacks the classification head, but the head is new or comes with the
    adapter. It also warns that PEFT 0.21 uses the old name of an attribute.
    """
    logs = transformers.logging
    verbosity, with_bars = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
            yield
    finally:
        logs.set_verbosity(verbosity)
        if with_bars:
            logs.enable_progress_bar()


def load_merged(
    adapter_dir: Path, config: PreTrainedConfig, trained_on: dict | None, dtype: torch.dtype
) -> PreTrainedModel:
    """Load an adapter, merged into its base model in float32 and then stored in `dtype`.

    The merged weights stay in the user's cache, under a checksum of adapter and base. Once they are there, the base
    model that the adapter was trained on is not looked for again.

    Args:
        trained_on: name, source and SHA-256 of the base weights that the adapter was trained on, if they are known.

    Raises:
        ArtifactError: the base model cannot be obtained.
        ValueError, OSError: the adapter's files are damaged, or the base is of another kind than it was trained on.
    """
    adapter = file_sha256(*(adapter_dir / name for name in (ADAPTER_CONFIG, "config.json", ADAPTER_WEIGHTS)))
    if trained_on and (model := _load_kept(_kept_folder(adapter, trained_on["sha256"], dtype), config, dtype)):
        return model
    from peft import PeftConfig, PeftModel

    base = resolve_base_model(PeftConfig.from_pretrained(adapter_dir).base_model_name_or_path, trained_on)
    wanted, found = (
        f"{one.model_type}, hidden size {one.hidden_size}" for one in (config, AutoConfig.from_pretrained(base.path))
    )
    if wanted != found:
        name = trained_on["name"] if trained_on else "another base model"
        raise ValueError(f"{adapter_dir} belongs to {name} ({wanted}) and not to {base.name} ({found})")
    kept = _kept_folder(adapter, base.sha256, dtype)
    if model := _load_kept(kept, config, dtype):
        return model
    with quiet_loading():
        model = AutoModelForSequenceClassification.from_pretrained(base.path, config=config, dtype=torch.float32)
        model = PeftModel.from_pretrained(model, adapter_dir).merge_and_unload().to(dtype)
        _keep(model, kept)
        # Loading gives some buffers, such as those of rotary positions, another format than `to` gave them, so a merged
        # model is always used as it is loaded.
        if loaded := _load_kept(kept, config, dtype):
            return loaded
        # The cache cannot be written.
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            return _load(Path(folder), config, dtype)


def _kept_folder(adapter_sha256: str, base_sha256: str, dtype: torch.dtype) -> Path:
    name = hashlib.sha256(f"{adapter_sha256} {base_sha256} {dtype}".encode()).hexdigest()
    return cache_dir() / "merged" / name


def _load(folder: Path, config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    with quiet_loading():
        return AutoModelForSequenceClassification.from_pretrained(folder, config=config, dtype=dtype)


def _load_kept(folder: Path, config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel | None:
    if not folder.is_dir():
        return None
    try:
        model = _load(folder, config, dtype)
    # Another process has just removed it, or a full disk has damaged it.
    except (OSError, ValueError, SafetensorError):
        shutil.rmtree(folder, ignore_errors=True)
        return None
    # The models used last are kept.
    with contextlib.suppress(OSError):
        os.utime(folder)
    return model


def _keep(model: PreTrainedModel, folder: Path) -> None:
    # Without a cache that can be written, the model is merged at every start.
    with contextlib.suppress(OSError, SafetensorError):
        with atomic_path(folder) as scratch:
            model.save_pretrained(scratch)
        kept = [other for other in folder.parent.iterdir() if not other.name.startswith(".")]
        for old in sorted(kept, key=lambda other: other.stat().st_mtime)[:-_KEPT_MODELS]:
            shutil.rmtree(old, ignore_errors=True)
