"""Environment variables of the chat, which `chainlit_gpt_classification.py` lists, and limits of what people send."""

import os
import socket
import sys
from pathlib import Path
from typing import NoReturn

from chainlit.config import config as chainlit_config

from text_classifier.reading.messages import Limits

ADAPTER_DIR = os.environ.get("ADAPTER_DIR", "./lora_model")
FEEDBACK_FILE = Path(os.environ["FEEDBACK_FILE"]) if os.environ.get("FEEDBACK_FILE") else None
OWN_HOSTS = ("localhost", "127.0.0.1", "[::1]")

# The chat and the API refuse a longer message. A longer cell of a file is cut.
MAX_MESSAGE_CHARACTERS = 100_000

# Texts in one request to the API.
MAX_REQUEST_TEXTS = 256
# A file of 10 MB may be uploaded (.chainlit/config.toml); the rest is room for the form around it.
MAX_REQUEST_BYTES = 11 * 2**20

# A file that is dropped into the chat. A small workbook, which is a zip archive, can unpack to gigabytes.
FILE_LIMITS = Limits(rows=10_000, columns=100, unpacked_bytes=50 * 2**20)

# Unanswered messages of one visit. A person types no faster; a script that does must not crowd out other visitors.
MAX_PENDING_MESSAGES = 8
# Answers of a visit that can still be marked as wrong.
MAX_REMEMBERED_ANSWERS = 200


def give_up(reason: str) -> NoReturn:
    """Print in one line why the app cannot start, and end the process with exit code 1."""
    print(reason, file=sys.stderr)
    sys.exit(1)


def check_address() -> None:
    """Give up where another program has the address that `chainlit run` was told to serve at.

    Chainlit itself would end with exit code 0, after it had removed the uploads.
    """
    run = chainlit_config.run
    if run.module_name is None or run.watch:
        return  # Somebody imports the app, or a server that watches its files loads it again.
    with socket.socket(socket.AF_INET6 if ":" in run.host else socket.AF_INET) as probe:
        # The server itself sets this option, too.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((run.host, run.port))
        except OSError as error:
            address = f"{run.host}:{run.port}"
            give_up(
                f"错误信息: 无法使用 {address}, 请用 --port 换一个端口 · cannot serve at {address}: {error.strerror}. "
                "Choose another port with --port"
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
