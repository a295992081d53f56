"""Write numbers, texts and file names as the page shows them."""

import re
import unicodedata
from collections.abc import Sequence

from chat.texts import say
from text_classifier.classifier import Answer


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


def reading_note(
    answer: Answer, threshold: float, learned: Sequence[str], max_tokens: int, language: str
) -> str | None:
    """Return what a visitor should know about how a message was read, or None if it was read as usual.

    Args:
        threshold: the visitor's decision threshold.
        learned: codes of the languages that the classifier learned.
        max_tokens: that the language model reads.
    """
    notes = []
    if answer.other_language:
        languages = say("and", language).join(say(f"language_{code}", language) for code in learned)
        notes.append(say("other_language", language, languages=languages))
    elif answer.less_sure_at(threshold):
        notes.append(say("less_sure", language))
    if answer.answered_by == "TF-IDF":
        notes.append(say("tfidf_alone", language))
    elif answer.truncated:
        notes.append(say("truncated", language, limit=max_tokens))
    return " ".join(notes) or None
