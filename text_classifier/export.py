"""Write a trained classifier as an ordinary model, or send it to the Hugging Face Hub.

python -m text_classifier.export lora_model merged                              # for transformers' pipeline
python -m text_classifier.export lora_model merged --onnx                       # for ONNX Runtime, too
python -m text_classifier.export lora_model merged --push_to_hub me/spam        # written, then sent
python -m text_classifier.export lora_model --push_to_hub me/spam-adapter       # the folder itself, as it is
"""

import argparse
import contextlib
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml
from huggingface_hub import HfApi, ModelCard, ModelCardData, constants, get_session
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers import AutoTokenizer

from text_classifier import cards
from text_classifier.classifier import Classifier, Settings, holds_adapter
from text_classifier.errors import ArtifactError, ConfigurationError, run_command
from text_classifier.files import exchange_folder, file_sha256
from text_classifier.sources.registry import CONNECT_TIMEOUT_SECONDS

# The model card of the folder that was exported, under the name that it has in the export.
ADAPTER_CARD = "adapter_card.md"


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line. If it is wrong, or asks for help, argparse says so and ends the program."""
    parser = argparse.ArgumentParser(
        prog="python -m text_classifier.export",
        description="Write a trained classifier as an ordinary model: merged, without TF-IDF, for transformers' "
        "pipeline. Or send it, or the folder as it is, to the Hugging Face Hub.",
    )
    parser.add_argument("folder", type=Path, help="folder that training saved, such as lora_model")
    parser.add_argument("target", type=Path, nargs="?", help="folder to write; without it --push_to_hub sends FOLDER")
    parser.add_argument("--onnx", action="store_true", help="write onnx/model.onnx, too (requirements/onnx.txt)")
    parser.add_argument("--push_to_hub", metavar="NAME", help="model repository to send to, such as me/spam")
    parser.add_argument("--private", action="store_true", help="create the repository as a private one")
    options = parser.parse_args(argv)
    if options.target is None and options.push_to_hub is None:
        parser.error("name a folder to write, or --push_to_hub")
    if options.target is None and options.onnx:
        parser.error("--onnx needs a folder to write")
    if options.push_to_hub is None and options.private:
        parser.error("--private needs --push_to_hub")
    return options


def check_target(target: Path) -> None:
    """Raise ValueError unless a folder can be written: it is not there, is empty, or holds an earlier export."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    with contextlib.suppress(OSError, ValueError):
        if Settings.load(target).exported_from is not None:
            return
    raise ValueError(f"{target} exists and is no earlier export. Name another folder, or remove it first.")


def export_model(folder: Path, target: Path, name: str, onnx: bool = False) -> None:
    """Write the language model of a trained folder as an ordinary model, which replaces an earlier export as a whole.

    Args:
        name: where people will load the model from, for the model card.
        onnx: also write it for ONNX Runtime, and check that the answers are the same.

    Raises:
        FileNotFoundError, ArtifactError, ValueError, OSError: see `Classifier.load` and `check_target`.
        ModuleNotFoundError: a package of requirements/onnx.txt is missing.
    """
    check_target(target)
    if onnx:
        # Imported only when needed: it has its own requirements and is slow to import.
        from text_classifier.extras.onnx_export import export_onnx
    classifier = Classifier.load(folder, device=torch.device("cpu"))
    # A message that spells out a special token is ordinary text, as in `runtime.encode`.
    tokenizer = AutoTokenizer.from_pretrained(folder, split_special_tokens=True)
    card = model_card(folder, name, classifier, onnx)
    target = target.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch_dir:
        scratch = Path(scratch_dir) / target.name
        classifier.model.save_pretrained(scratch)
        # safetensors lets only the owner read its files.
        for weights in scratch.glob("*.safetensors"):
            shutil.copymode(scratch / "config.json", weights)
        tokenizer.save_pretrained(scratch)
        checksum = file_sha256(*sorted(folder.glob("*.safetensors")))
        Settings(
            base_model=classifier.settings.base_model,
            # A threshold for both models together does not apply to the language model alone.
            decision_threshold=0.5 if classifier.tfidf else classifier.settings.decision_threshold,
            languages=classifier.settings.languages,
            exported_from={"folder": folder.resolve().name, "sha256": checksum},
        ).save(scratch)
        (scratch / "README.md").write_text(card, encoding="utf-8")
        if (folder / "README.md").is_file():
            text = (folder / "README.md").read_text(encoding="utf-8")
            (scratch / ADAPTER_CARD).write_text(ModelCard(text, ignore_metadata_errors=True).text, encoding="utf-8")
        if onnx:
            (scratch / "onnx").mkdir()
            export_onnx(classifier.model, tokenizer, scratch / "onnx" / "model.onnx")
        exchange_folder(scratch, target)


# ---------------------------------------------------------------------------- the model card


def model_card(folder: Path, name: str, classifier: Classifier, onnx: bool) -> str:
    """Return the text of an export's README.md; the model card in `folder` tells the licence."""
    base = classifier.settings.base_model or {}
    try:
        known = ModelCard.load(folder / "README.md").data
    # The folder has no card, or one of another form.
    except (OSError, ValueError, yaml.YAMLError):
        known = ModelCardData()
    metadata = ModelCardData(
        # The Hub refuses a base model that it does not have.
        base_model=classifier.base_name if base.get("source", "local folder") != "local folder" else None,
        library_name="transformers",
        pipeline_tag="text-classification",
        language=known.language,
        license=known.license,
        tags=["text-classification"],
    )
    return cards.fill(
        "exported",
        metadata,
        name=name,
        classifier=classifier,
        base=base,
        adapter=holds_adapter(folder),
        licence=known.license,
        adapter_card=ADAPTER_CARD if (folder / "README.md").is_file() else None,
        onnx=onnx,
    )


# ---------------------------------------------------------------------------- the Hub


def check_login() -> str:
    """Return the account that is logged in to the Hub; ConfigurationError without a login or a connection."""
    try:
        # Send a small request with a time limit first, because `whoami` waits without one.
        get_session().head(constants.ENDPOINT, timeout=CONNECT_TIMEOUT_SECONDS)
        return HfApi().whoami()["name"]
    # Without a connection, huggingface_hub passes on what its HTTP client raises.
    except Exception as error:
        raise ConfigurationError(
            f"--push_to_hub needs a connection to the Hub and a login (hf auth login): {_reason(error)}"
        ) from error


def full_name(name: str) -> str:
    """Return the name of a repository with its account; a name without one means the account that is logged in.

    Raises:
        ConfigurationError: the Hub has no such names, it cannot be reached, or nobody is logged in.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ConfigurationError(f"--push_to_hub {name}: {_reason(error)}") from error
    account = check_login()
    return name if "/" in name else f"{account}/{name}"


def send_folder(folder: Path, name: str, private: bool) -> str:
    """Send the files of a folder to a model repository in one commit, and return the repository's address.

    Args:
        name: name of the repository with its account; it is created if the Hub does not have it.
        private: create it as a private one; one that is public already gets nothing.

    Raises:
        ArtifactError: the Hub refused them, or the connection broke; the repository has none of the files then.
    """
    hub = HfApi()
    try:
        address = hub.create_repo(name, private=private or None, exist_ok=True)
        if private and not hub.model_info(name).private:
            raise ValueError("it is there already and is public")
        hub.upload_folder(repo_id=name, folder_path=folder, commit_message=f"Upload {folder.resolve().name}")
    # As in `check_login`. The Hub may name several reasons, a line each.
    except Exception as error:
        raise ArtifactError(f"{folder} was not sent to {name}: {' '.join(str(error).split())}") from error
    return str(address)


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


# ---------------------------------------------------------------------------- the command


def run(options: argparse.Namespace) -> None:
    """Write and send what the command line asks for; nothing is written if it cannot be sent."""
    holds_adapter(options.folder)
    name = options.push_to_hub and full_name(options.push_to_hub)
    if options.target is not None:
        export_model(options.folder, options.target, name or str(options.target), options.onnx)
        print(f'{options.target} is a model for pipeline("text-classification", model="{options.target}")')
    if name:
        print(f"Sent to {send_folder(options.target or options.folder, name, options.private)}")


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line asks for, and return the exit code of `run_command`."""
    options = parse_options(argv)
    return run_command(lambda: run(options), str(options.target))


if __name__ == "__main__":
    sys.exit(main())
