"""The environment variables of the chat; the docstring of `chainlit_gpt_classification.py` lists them."""

import os
import socket
import sys
from pathlib import Path
from typing import NoReturn

from chainlit.config import config as chainlit_config

ADAPTER_DIR = os.environ.get("ADAPTER_DIR", "./lora_model")
# Names of this machine.
OWN_HOSTS = ("localhost", "127.0.0.1", "[::1]")

FEEDBACK_FILE = Path(os.environ["FEEDBACK_FILE"]) if os.environ.get("FEEDBACK_FILE") else None


def give_up(reason: str) -> NoReturn:
    """Print in one line why the app cannot start, and end the process with exit code 1."""
    print(reason, file=sys.stderr)
    sys.exit(1)


def check_address() -> None:
    """Give up where another program has the address that `chainlit run` was told to serve at.

    Chainlit would end with exit code 0, after it had removed the uploads.
    """
    run = chainlit_config.run
    # Somebody imports the app, or a server that watches its files loads it again.
    if run.module_name is None or run.watch:
        return
    with socket.socket(socket.AF_INET6 if ":" in run.host else socket.AF_INET) as probe:
        # As the server itself asks for it.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((run.host, run.port))
        except OSError as error:
            give_up(
                f"错误信息: 无法使用 {run.host}:{run.port} · cannot serve at {run.host}:{run.port}: {error.strerror}"
            )


def get_credentials() -> tuple[str, str] | None:
    """Return the name and password that visitors must give, or None if everyone may come in."""
    name, password = os.environ.get("CHAT_USERNAME"), os.environ.get("CHAT_PASSWORD")
    if bool(name) != bool(password):
        give_up("错误信息: 请同时设置 CHAT_USERNAME 和 CHAT_PASSWORD · set both of them, or neither")
    if name and not (name + password).isascii():
        # Browsers and programs encode other characters differently in HTTP Basic.
        give_up("错误信息: CHAT_USERNAME 和 CHAT_PASSWORD 只能用 ASCII 字符 · both must be ASCII")
    return (name, password) if name else None


def get_hosts() -> list[str]:
    """Return the host names that the server answers to; `*` is every name."""
    if named := os.environ.get("CHAT_HOSTS"):
        return [name.strip() for name in named.split(",")]
    return list(OWN_HOSTS) if chainlit_config.run.host in OWN_HOSTS else ["*"]
