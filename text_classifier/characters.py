"""Replace characters that tokenizers, files and databases cannot read."""


def replace_half_surrogates(text: str) -> str:
    """Replace each half of a surrogate pair by a question mark.

    A browser can send such a half. It is not a character, so tokenizers, files and databases refuse it.
    """
    return text.encode("utf-8", "replace").decode("utf-8")


def is_blank(text: str) -> bool:
    """Return whether a text has only white space, control characters and other invisible characters."""
    return not any(character.isprintable() and not character.isspace() for character in text)
