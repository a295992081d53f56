"""Write files in one piece, lock what is being written, and compute checksums."""

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

from filelock import FileLock, Timeout

# Stands for standard output or, in place of a file to read, for standard input.
STANDARD = Path("-")


def file_sha256(*paths: Path) -> str:
    """Return one SHA-256 (hex) of the bytes of all given files, in their order."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def is_stream(path: Path) -> bool:
    """Return whether a path means standard input or output, a device or a pipe: it is written to, never replaced."""
    return path == STANDARD or (path.exists() and not path.is_file() and not path.is_dir())


@contextlib.contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target` and rename it to `target` if the block ends without error.

    A reader of `target` sees the old file or the whole new one. A killed process leaves only a temporary folder
    behind. A link stays a link: the file that it names is replaced. A device or a pipe gets the content. To write a
    folder, create it at the yielded path; then `target` must not exist.
    """
    stream = is_stream(target)
    if not stream:
        target = target.resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
    place = {} if stream else {"dir": target.parent, "prefix": f".{target.name}."}
    with tempfile.TemporaryDirectory(**place) as scratch_dir:
        # The name keeps its suffix, because matplotlib and pandas read the format from it.
        scratch = Path(scratch_dir) / target.name
        yield scratch
        if stream:
            with scratch.open("rb") as content, target.open("wb") as output:
                shutil.copyfileobj(content, output)
        else:
            os.replace(scratch, target)


@contextlib.contextmanager
def exclusive(target: Path) -> Iterator[None]:
    """Let only one process at a time write a file or folder; a hidden lock file stands beside it meanwhile.

    Raises:
        BlockingIOError: another process is writing it; the message names the process.
    """
    target = target.resolve()
    path = target.with_name(f".{target.name}.lock")
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        # Imported only where it is needed: everything imports this module.
        import psutil

        files = {process.pid: process.info["open_files"] or () for process in psutil.process_iter(["open_files"])}
        del files[os.getpid()]
        holder = next((pid for pid, opened in files.items() if str(path) in (file.path for file in opened)), None)
        who = f"process {holder}" if holder else "another process"
        raise BlockingIOError(f"{target} is being written by {who}. Wait for its end, or write elsewhere.") from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


def exchange_folder(new: Path, target: Path) -> None:
    """Put the folder `new` in the place of `target` and delete the old folder.

    On Linux one system call swaps the two names, so `target` always exists, even if the process is killed.
    Other systems need two renames, and `target` is missing for an instant between them.
    """
    if not target.exists():
        os.replace(new, target)
        return
    at_working_directory, rename_exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of renameat2(2)
    names = (at_working_directory, os.fsencode(new), at_working_directory, os.fsencode(target))
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    if renameat2 is None or renameat2(*names, rename_exchange) != 0:
        old = new.with_name(f"{new.name}.old")
        # A killed run may have left it.
        shutil.rmtree(old, ignore_errors=True)
        os.rename(target, old)
        os.rename(new, target)
        new = old
    shutil.rmtree(new)


def write_json(content: dict, path: Path) -> None:
    """Write JSON in one piece; a missing folder is created."""
    with atomic_path(path) as scratch:
        scratch.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
