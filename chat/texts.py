"""What the chat says in Chinese and English, from texts.yaml; the page around it has Chainlit's own translations."""

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import yaml

from text_classifier.reading.notes import NOTES

CHINESE_LABELS = {"spam": "垃圾信息", "ham": "正常信息", "positive": "正面评论", "negative": "负面评论"}

_SENTENCES = yaml.safe_load(Path(__file__).with_name("texts.yaml").read_text("utf-8"))
STARTERS: dict[str, dict] = _SENTENCES["starters"]
# Where a language lacks a text, readers get the English one.
TEXTS: dict[str, dict[str, str]] = {
    language: {key: note.get(language, note["en"]) for key, note in NOTES.items()} | _SENTENCES["en"] | texts
    for language, texts in _SENTENCES.items()
    if language != "starters"
}
LANGUAGES = {language: texts["name"] for language, texts in TEXTS.items()}


def starters(label: str, language: str, learned: Sequence[str]) -> list[tuple[str, str]]:
    """Return title and text of the messages to try, for readers of `language`.

    Args:
        label: the one that the model detects.
        learned: languages that the model learned (codes such as `en`).
    """
    if label not in STARTERS:
        return []
    titles, texts = STARTERS[label]["titles"], STARTERS[label]["texts"]
    written_in = language if language in learned and language in texts else "en"
    return list(zip(titles.get(language, titles["en"]), texts[written_in], strict=True))


def closest_language(code: str | None) -> str:
    """Return the language to answer in for a browser's language code, such as `zh-CN`."""
    language = (code or "").lower()[:2]
    return language if language in LANGUAGES else "en"


def label_name(label: str, language: str) -> str:
    """Return a label's name for readers of `language`; a label without a Chinese name stays as it is."""
    return CHINESE_LABELS.get(label, label) if language == "zh" else label


def say(key: str, language: str, /, **values) -> str:
    """Return the text `key` in `language` with the values filled in.

    Raises:
        KeyError: there is no such text, or a value is missing.
    """
    return TEXTS[language][key].format(**values)


# ---------------------------------------------------------------------------- numbers, texts and names of visitors


def show_probability(probability: float) -> str:
    """Write a probability in per cent, but never as 0 % or 100 %, because no answer is certain."""
    if probability >= 0.9995:
        return "> 99.9 %"
    return f"{100 * probability:.1f} %" if probability >= 0.0005 else "< 0.1 %"


def visible(text: str) -> str:
    """Replace characters that hide text or change its direction: control characters and directional marks.

    Line breaks and tabs stay, and so do the two zero-width characters that letters and emoji need to join.
    """
    kept = "\n\r\t\u200c\u200d"
    hidden = ("Cc", "Cf", "Cs")
    return "".join("\ufffd" if unicodedata.category(one) in hidden and one not in kept else one for one in text)


def quoted(name: str) -> str:
    """Return a file's name as inline code, so that nothing in it acts as markup."""
    return "`" + re.sub(r"[`\s]+", " ", visible(name)) + "`"
