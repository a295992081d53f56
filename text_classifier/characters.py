"""Replace characters that tokenizers, files and databases cannot read."""


def replace_half_surrogates(text: str) -> str:
    """Replace each half of a surrogate pair by a question mark.

    A browser can send such a half. It is not a character, so tokenizers, files and databases refuse it.
    """
    return text.encode("utf-8", "replace").decode("utf-8")
