"""Write files so that they are never half-written, and compute checksums."""

import contextlib
import ctypes
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path


def file_sha256(*paths: Path) -> str:
    """Return one SHA-256 (hex) of the bytes of all given files, in their order."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target` and rename it to `target` if the block ends without error.

    A reader of `target` sees the old file or the whole new one. A killed process leaves only a temporary folder
    behind. To write a folder, create it at the yielded path; then `target` must not exist.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch_dir:
        # The name keeps its suffix, because matplotlib and pandas read the format from it.
        scratch = Path(scratch_dir) / target.name
        yield scratch
        os.replace(scratch, target)


def exchange_folder(new: Path, target: Path) -> None:
    """Put the folder `new` in the place of `target` and delete the old folder.

    On Linux one system call swaps the two names, so `target` always exists, even if the process is killed.
    Other systems need two renames, and `target` is missing for an instant between them.
    """
    if not target.exists():
        os.replace(new, target)
        return
    at_working_directory, rename_exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of renameat2(2)
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    names = (os.fsencode(new), os.fsencode(target))
    exchanged = renameat2 and not renameat2(
        at_working_directory, names[0], at_working_directory, names[1], rename_exchange
    )
    if not exchanged:
        old = new.with_name(f"{new.name}.old")
        os.rename(target, old)
        os.rename(new, target)
        new = old
    shutil.rmtree(new)


def write_json(content: dict, path: Path) -> None:
    """Write JSON in one piece; a missing folder is created."""
    with atomic_path(path) as scratch:
        scratch.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
