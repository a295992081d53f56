"""Keep uploaded files where no other server can remove them: below `.files`, each process has a folder of its own."""

import contextlib
import shutil
from pathlib import Path

import chainlit.server
import psutil
from chainlit.config import APP_ROOT
from chainlit.session import BaseSession

UPLOADS = Path(APP_ROOT, ".files")


def use_own_folder() -> None:
    """Let Chainlit keep uploads in a folder of this process, made anew where it is missing. Call this at the start.

    Chainlit itself keeps the uploads of all servers that were started in one folder together, and removes them all when
    one of these servers ends. What a killed server left is removed here.
    """
    remove_remains()
    folder = UPLOADS / _name(psutil.Process())
    # Chainlit removes this folder when the server ends.
    chainlit.server.FILES_DIRECTORY = folder

    def files_dir(session: BaseSession) -> Path:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder / session.id

    BaseSession.files_dir = property(files_dir)
    keep = BaseSession.persist_file

    async def persist_file(session: BaseSession, name: str, mime: str, path=None, content=None):
        # Chainlit fails on an empty file. A line end makes the reader say that there are no messages in it.
        return await keep(session, name, mime, path, content if path or content else b"\n")

    BaseSession.persist_file = persist_file


def remove_remains() -> None:
    """Remove the uploads of servers that do not run any more."""
    running = {_name(process) for process in psutil.process_iter()}
    for folder in UPLOADS.glob("process-*"):
        if folder.name not in running:
            shutil.rmtree(folder, ignore_errors=True)


def _name(process: psutil.Process) -> str:
    # Process numbers are used again, so the time of the start belongs to the name.
    started = 0.0
    with contextlib.suppress(psutil.Error, OSError):
        started = process.create_time()
    return f"process-{process.pid}-{started:.0f}"
