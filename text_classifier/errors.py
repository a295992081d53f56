"""Errors that the user can fix: each message says what happened and what to do; and how a command ends with one."""

import errno
import os
import sys
from collections.abc import Callable

_CANNOT_WRITE = [
    os.strerror(code)
    for code in (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.ENOTCONN, errno.EACCES)
]
# Packages that only one option needs: the option, and the file of requirements that has them.
_OPTIONAL = {"ray": ("--workers", "ray")} | dict.fromkeys(("onnx", "onnxscript", "onnxruntime"), ("--onnx", "onnx"))


class ArtifactError(RuntimeError):
    """Weights or data cannot be obtained; the message lists what was tried and what to do."""


class UnreachableError(ArtifactError):
    """The Hub or an address did not answer, so nobody knows whether it has the weights or data."""


class ConfigurationError(ValueError):
    """Training or sending cannot start with these data or arguments; the message says what to change."""


def describe_failure(error: Exception, place: str) -> str | None:
    """Return in a sentence why something failed that the user can fix; None if the error is of another kind.

    Libraries raise exceptions of all kinds where a disk is full, and few of them name the file.

    Args:
        place: what was being written, for an error that does not name it.
    """
    if isinstance(error, ArtifactError | ConfigurationError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and error.name in _OPTIONAL:
        option, requirements = _OPTIONAL[error.name]
        return f"{option} needs {error.name}: pip install -r requirements/{requirements}.txt"
    text = str(error)
    if isinstance(error, OSError) and (error.filename or not error.errno):
        return text
    reason = next((reason for reason in _CANNOT_WRITE if reason in text), None)
    if reason is None and ("PytorchStreamWriter failed" in text or "disk is full" in text):
        reason = os.strerror(errno.ENOSPC)
    if reason:
        return f"{place}: cannot be written: {reason}"
    return text if isinstance(error, OSError) else None


def run_command(work: Callable[[], object], place: str, interrupted: str = "Interrupted.") -> int:
    """Do the work of a command, and print an error that the user can fix in one line, without a traceback.

    Args:
        place: what is being written, as in `describe_failure`.
        interrupted: what to say after an interruption.

    Returns:
        The exit code: 0, 1 after an error, or 130 after an interruption.
    """
    try:
        work()
    except KeyboardInterrupt:
        print(f"\n{interrupted}", file=sys.stderr)
        return 130
    except Exception as error:
        told = str(error) if isinstance(error, ValueError) else describe_failure(error, place)
        if told is None:
            raise
        print(f"Error: {told}", file=sys.stderr)
        return 1
    return 0
