"""Send folders to the Hugging Face Hub."""

from pathlib import Path

from huggingface_hub import HfApi, constants, get_session
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from text_classifier.errors import ArtifactError, ConfigurationError
from text_classifier.sources.registry import CONNECT_TIMEOUT_SECONDS


def check_login() -> str:
    """Check that the Hub can be reached and knows who is asking, and return the name of that account.

    Raises:
        ConfigurationError: it cannot be reached, or nobody is logged in.
    """
    try:
        # Send a small request with a time limit first, because `whoami` waits without one.
        get_session().head(constants.ENDPOINT, timeout=CONNECT_TIMEOUT_SECONDS)
        return HfApi().whoami()["name"]
    # Without a connection, huggingface_hub passes on what its HTTP client raises.
    except Exception as error:
        raise ConfigurationError(
            f"--push_to_hub needs a connection to the Hub and a login (hf auth login): {_reason(error)}"
        ) from error


def full_name(name: str) -> str:
    """Return the name of a repository with its account; a name without one means the account that is logged in.

    Raises:
        ConfigurationError: the Hub has no such names, it cannot be reached, or nobody is logged in.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ConfigurationError(f"--push_to_hub {name}: {_reason(error)}") from error
    account = check_login()
    return name if "/" in name else f"{account}/{name}"


def send_folder(folder: Path, name: str, private: bool) -> str:
    """Send the files of a folder to a model repository in one commit, and return the repository's address.

    Args:
        name: name of the repository with its account; it is created if the Hub does not have it.
        private: create it as a private one; one that is public already gets nothing.

    Raises:
        ArtifactError: the Hub refused them, or the connection broke; the repository has none of the files then.
    """
    hub = HfApi()
    try:
        address = hub.create_repo(name, private=private or None, exist_ok=True)
        if private and not hub.model_info(name).private:
            raise ValueError("it is there already and is public")
        hub.upload_folder(repo_id=name, folder_path=folder, commit_message=f"Upload {folder.resolve().name}")
    # As in `check_login`. The Hub may name several reasons, a line each.
    except Exception as error:
        raise ArtifactError(f"{folder} was not sent to {name}: {' '.join(str(error).split())}") from error
    return str(address)


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
