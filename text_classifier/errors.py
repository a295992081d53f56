"""Errors that the user can fix: each message says what happened and what to do."""


class ArtifactError(RuntimeError):
    """Weights or data cannot be obtained; the message lists what was tried and what to do."""


class UnreachableError(ArtifactError):
    """The Hub or an address did not answer, so nobody knows whether it has the weights or data."""


class ConfigurationError(ValueError):
    """Training or sending cannot start with these data or arguments; the message says what to change."""
