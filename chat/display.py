"""How numbers, texts and names of files are shown."""

import re
import unicodedata


def percent(probability: float) -> str:
    """Write a probability; nothing is certain, so 0 % and 100 % would be rounded claims."""
    if probability >= 0.9995:
        return "> 99.9 %"
    return f"{100 * probability:.1f} %" if probability >= 0.0005 else "< 0.1 %"


def visible(text: str) -> str:
    """Replace what would hide or turn text around: control characters and directional marks.

    Line breaks stay, and the two characters that join letters and emoji.
    """
    kept = "\n\r\t\u200c\u200d"
    hidden = ("Cc", "Cf", "Cs")
    return "".join("\ufffd" if unicodedata.category(one) in hidden and one not in kept else one for one in text)


def quoted(name: str) -> str:
    """Return a file's name for a message, where nothing in it can act as markup."""
    return "`" + re.sub(r"[`\s]+", " ", visible(name)) + "`"
