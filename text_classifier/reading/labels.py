"""Labels as people write them, and which of two is class 1, the one to detect."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

# Well-known labels, without case, in the languages of this project: class 1 is what is detected, whatever the alphabet
# says. Those of the first line answer a question, such as `is_spam`; the others are names.
_YES, _NO = {"yes", "true", "1", "1.0", "是"}, {"no", "false", "0", "0.0", "否"}
_DETECTED = {"abuse", "toxic", "fake", "suspicious", "positive", "pos", "正面", "好评", "危险"}
_NORMAL = {
    *("ham", "normal", "ok", "none", "negative", "neg", "benign", "genuine", "wanted", "real", "trusted"),
    *("负面", "差评", "安全"),
}
# Names of unwanted messages, of which a label may be a part: "Phishing Email", "诈骗短信" ...
_UNWANTED = re.compile(
    "spam|smish|phish|scam|fraud|junk|malicious|unwanted|垃圾|诈骗|詐騙|欺诈|詐欺|骚扰|騷擾|钓鱼|釣魚|非法|违法"
)
# ... but not of "Safe Email", "not_spam", "nonspam", "spam-free", "非垃圾短信".
_WANTED = re.compile(
    rf"\b(not|non|no|safe|legit\w*|clean)\b|\b(not|non|no|anti|un)\W?(?={_UNWANTED.pattern})"
    rf"|({_UNWANTED.pattern})\W?free\b|正常|普通|(?<!不)合法|非(?!法)|不是|^无|^無"
)

# What else may stand in a label that has one of these words: "Phishing Email", "fraudulent", "诈骗短信".
_GENERIC = r"(e?mails?\b|(sms|msg|message|text)s?\b|短信|信息|消息|邮件|簡訊|訊息|\W)*"
_REST_OF_NAME = re.compile(rf"{_GENERIC}[a-z]{{0,5}}{_GENERIC}")

# What may stand between a label and its message, besides a space.
MARKS = ":：,，;|"

# A message behind its label: `ham See you`, `spam: Win`, `[ham] Ok`, `【垃圾】恭喜`, and as fastText has it,
# `__label__ham See you`.
_LEADING = re.compile(
    r"\s*(?:__label__(?P<fasttext>\S+)|[\[(（【\"'“]?(?P<name>[^\W_][\w-]*)[\])）】\"'”]?)"
    rf"(?:(?P<mark>\s*[{MARKS}]|[ \u3000]|(?<=[\])）】]))\s*(?P<text>.*))?$",
    re.DOTALL,
)

# What tables have in place of a label that nobody gave.
_MISSING = {"", "nan", "null", "na", "n/a", "#n/a", "<na>"}


@dataclass(frozen=True)
class Classes:
    """The two classes of the data."""

    names: tuple[str, str]  # of class 0 and class 1
    ids: dict[str, int]  # label without case -> 0 or 1
    clear: bool = True  # the names tell which class to detect, or somebody named it; otherwise the alphabet decided

    def ids_of(self, labels: pd.Series) -> pd.Series:
        """Return the class of each label, 0 or 1; missing for a label that is in neither class."""
        return without_case(labels).map(self.ids)

    def describe(self) -> str:
        """Return which label is detected, where the names do not tell or a class has several; else an empty string."""
        if not self.clear:
            return (
                f"THE LABELS DO NOT TELL WHICH OF THEM TO DETECT. It is {self.names[1]!r}, the later in the alphabet; "
                f"to detect the other: --positive_label {shlex.quote(self.names[0])}"
            )
        if len(self.ids) == 2:
            return ""
        members = [", ".join(label for label, number in self.ids.items() if number == of) for of in (0, 1)]
        return f"Class 0, {self.names[0]}: {members[0]}. Class 1, {self.names[1]}, the one to detect: {members[1]}."


def without_case(labels: pd.Series) -> pd.Series:
    """Return the labels without case and outer space, in which people are careless."""
    return labels.str.strip().str.casefold()


def is_missing(labels: pd.Series) -> pd.Series:
    """Return for each label whether it is none: empty, or what programs write for a missing value, such as `NaN`."""
    return without_case(labels).isin(_MISSING)


def _tells(label: str, other: str) -> int:
    """Return 1 if a label is by its name the one to detect, beside the other label, -1 if it is not, 0 if unknown."""
    plain = label.replace("_", " ")
    if label in _NO | _NORMAL or _WANTED.search(plain):
        return -1
    # 1 is what is detected beside 0; beside 2 it is only the first of two.
    if label.removesuffix(".0") == "1" and other.removesuffix(".0").isdigit() and other not in _NO:
        return 0
    return int(label in _YES | _DETECTED or bool(_UNWANTED.search(plain)))


def is_name_of_class(word: str) -> bool:
    """Return whether a word is a label by its name, such as `ham`, `Not_Spam` or `诈骗短信`; `yes` and `1` are not."""
    plain = word.strip().casefold().replace("_", " ")
    if plain in _DETECTED | _NORMAL:
        return True
    named = re.search(rf"{_UNWANTED.pattern}|\b(safe|legit|clean)|正常|普通|合法", plain)
    return bool(named and _REST_OF_NAME.fullmatch(_UNWANTED.sub("", _WANTED.sub("", plain))))


def find_classes(labels: pd.Series, positive: Sequence[str] | None = None) -> Classes:
    """Find the two classes: labels that differ only in case or outer space are one, with its most frequent spelling.

    Args:
        positive: labels that make up class 1, which is called like the first; all others make up class 0. By default
            class 1 is the one with a well-known name such as spam, or else the later in the alphabet.

    Raises:
        ValueError: there are not two classes.
    """
    spellings = labels.str.strip().groupby(without_case(labels)).agg(lambda same: same.value_counts().index[0])
    names: dict[str, str] = spellings.to_dict()
    shown = ", ".join(map(repr, list(names.values())[:5])) + (", …" if len(names) > 5 else "")
    if len(names) < 2 or (positive is None and len(names) > 2):
        found = f"{len(names)}: {shown}." if names else "0."
        if len(names) > 2:
            found += " Name those that make up class 1, the one to detect, with --positive_label; "
            found += "the others make up class 0."
        raise ValueError(f"The classifier needs two labels; the data has {found}")
    clear = True
    if positive is None:
        first, second = sorted(names)
        clear = _tells(first, second) != _tells(second, first)
        detected = [first if _tells(first, second) > _tells(second, first) else second]
    else:
        detected = [label.strip().casefold() for label in positive]
        if unknown := [label for label, folded in zip(positive, detected, strict=True) if folded not in names]:
            raise ValueError(f"--positive_label {unknown[0]!r} is none of the labels {shown}.")
    rest = [label for label in names if label not in detected]
    if not rest:
        raise ValueError(f"--positive_label names all labels, {shown}, so that none is left for class 0.")
    # Several labels have no name together, so class 0 is called by what it is not.
    name_of_rest = names[rest[0]] if len(rest) == 1 else f"not {names[detected[0]]}"
    return Classes((name_of_rest, names[detected[0]]), dict.fromkeys(rest, 0) | dict.fromkeys(detected, 1), clear)


def split_label(line: str) -> tuple[str, str, str]:
    """Return the label that a line begins with, what separates it from the message, and the message.

    A line without one is a message.
    """
    if found := _LEADING.match(line.rstrip("\r\n")):
        label = found["fasttext"] or found["name"]
        if found["fasttext"] or label in ("0", "1") or is_name_of_class(label):
            return label, (found["mark"] or "").strip(), found["text"] or ""
    return "", "", line.rstrip("\r\n")


def begin_with_labels(lines: Sequence[str], marks: str = MARKS) -> bool:
    """Return whether each line begins with its label, and there are labels of two classes.

    Args:
        marks: what may stand between label and message, if it is no space.
    """
    found = [split_label(line) for line in lines]
    if not any(text for _, _, text in found) or not all(label and mark in marks for label, mark, _ in found):
        return False
    kinds = {label.casefold() for label, _, _ in found}
    if all(line.lstrip().startswith("__label__") for line in lines):
        return True
    # Messages may begin with a number; four of them do not all begin with 0 or 1.
    return {_tells(label, "0") for label in kinds} == {1, -1} and (kinds != {"0", "1"} or len(lines) >= 4)
