"""Start the chat as a person would, on a free port of this machine, and talk to it."""

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import socketio

from benchmarks.common import REPOSITORY


def app_command(port: int, *options: str) -> list[str]:
    app = str(REPOSITORY / "chainlit_gpt_classification.py")
    return [sys.executable, "-m", "chainlit", "run", app, "--headless", "--port", str(port), *options]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def copy_of_app(folder: Path) -> Path:
    """Copy the files that the app reads from its working directory, all but the adapter; return the folder."""
    ignore = shutil.ignore_patterns("translations")
    for name in (".chainlit", "public"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=ignore)
    for page in REPOSITORY.glob("chainlit*.md"):
        shutil.copy(page, folder)
    return folder


def environment(**variables: str) -> dict[str, str]:
    """Return the environment of this process, in which only the given ones of the app's own variables are set."""
    own = ("ADAPTER_DIR", "FEEDBACK_FILE", "CHAT_USERNAME", "CHAT_PASSWORD", "CHAT_HOSTS", "CHAINLIT_AUTH_SECRET")
    return {name: value for name, value in os.environ.items() if name not in own} | variables


class ChatClient:
    """A visitor without a browser, who speaks Chainlit's WebSocket protocol."""

    def __init__(self, address: str):
        self.address, self.answers, self.session_id = address, asyncio.Queue(), str(uuid.uuid4())
        self.connection = socketio.AsyncClient(reconnection=False)
        self.connection.on("new_message", self.receive)
        self.connection.on("disconnect", lambda reason: self.answers.put_nowait(None))

    async def receive(self, step: dict) -> None:
        if step["type"] == "assistant_message":
            await self.answers.put(step["output"])

    async def answer(self, patience: float) -> str:
        """Return the next answer.

        Raises:
            TimeoutError: none came within `patience` seconds.
            ConnectionError: the server ended the connection.
        """
        answer = await asyncio.wait_for(self.answers.get(), patience)
        if answer is None:
            raise ConnectionError("The server ended the connection.")
        return answer

    async def __aenter__(self):
        auth = {"sessionId": self.session_id, "clientType": "webapp", "userEnv": "{}"}
        path = "/ws/socket.io"
        await self.connection.connect(self.address, auth=auth, socketio_path=path, transports=["websocket"])
        await self.connection.emit("connection_successful")
        return self

    async def __aexit__(self, *_):
        await self.connection.disconnect()

    async def send(self, text: str) -> None:
        message = {"id": str(uuid.uuid4()), "name": "user", "type": "user_message", "output": text, "createdAt": ""}
        await self.connection.emit("client_message", {"message": message, "fileReferences": []})


@contextlib.contextmanager
def running_app(folder: Path, *options: str, port: int | None = None, **variables: str) -> Iterator[str]:
    """Run the app in `folder` until the block ends, and yield its address; it adds its output to `log.txt` there.

    Args:
        options: of `chainlit run`.
        port: a free one if not set.
        variables: environment variables of the app.

    Raises:
        RuntimeError: the app has ended before it answered.
    """
    port = port or free_port()
    address = f"http://127.0.0.1:{port}"
    with (folder / "log.txt").open("a") as log:
        command, own = app_command(port, *options), environment(**variables)
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=own)
        try:
            # One client for all tries: a new one reads the machine's certificates, and the starting app needs the CPU.
            with httpx.Client(timeout=2) as client:
                while process.poll() is None:
                    with contextlib.suppress(httpx.TransportError):
                        client.get(f"{address}/api/health")
                        break
                    time.sleep(0.1)
                else:
                    raise RuntimeError(f"The app has ended: {(folder / 'log.txt').read_text()}")
            yield address
        finally:
            process.terminate()
            process.wait(30)
