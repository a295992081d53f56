"""What can go wrong where people can mend it: each message says what happened and what to do."""


class ArtifactError(RuntimeError):
    """Weights or data could not be had; the message lists what was tried and what to do."""


class UnreachableError(ArtifactError):
    """The Hub or an address did not answer, so whether it has what is wanted is not known."""


class ConfigurationError(ValueError):
    """The data or the arguments do not allow a training run; the message says what to change."""
