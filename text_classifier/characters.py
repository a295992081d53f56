"""Characters that a message can hold and that nothing else can read."""


def replace_half_surrogates(text: str) -> str:
    """Put a question mark for each half of a surrogate pair.

    A browser can send one; it is no character, so that no tokenizer, file or database takes it.
    """
    return text.encode("utf-8", "replace").decode("utf-8")
