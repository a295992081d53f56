"""Labels as people write them, and which of two is class 1, the one to detect."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

# Well-known names, and how such names begin, in the languages of this project: class 1 is what is detected, whatever
# the alphabet says.
_DETECTED = {
    *("spam", "smishing", "phishing", "scam", "fraud", "junk", "abuse", "toxic", "positive", "pos", "yes", "true", "1"),
    *("1.0", "正面", "好评", "是"),
}
_NORMAL = {
    *("ham", "legit", "legitimate", "normal", "safe", "ok", "clean", "none", "negative", "neg", "no", "false", "0"),
    *("0.0", "负面", "差评", "否"),
}
_DETECTED_BEGIN, _NORMAL_BEGIN = ("spam", "垃圾", "诈骗", "欺诈", "骚扰"), ("not ", "non", "no ", "正常", "非", "不是")


@dataclass(frozen=True)
class Classes:
    """The two classes of the data."""

    names: tuple[str, str]
    """Names of class 0 and class 1."""
    ids: dict[str, int]
    """Label without case -> 0 or 1."""

    def ids_of(self, labels: pd.Series) -> pd.Series:
        """Return the class of each label, 0 or 1; missing for a label that is in neither class."""
        return without_case(labels).map(self.ids)

    def describe(self) -> str:
        """Return which labels are class 1, for the log."""
        members = [label for label, number in self.ids.items() if number == 1]
        others = "" if len(members) == 1 else f" ({', '.join(members)})"
        return f"{self.names[1]}{others}"


def without_case(labels: pd.Series) -> pd.Series:
    """Return the labels without case and outer space, in which people are careless."""
    return labels.str.strip().str.casefold()


def _likely_class_1(label: str) -> tuple[bool, bool, str]:
    detected = label in _DETECTED or label.startswith(_DETECTED_BEGIN)
    return detected, not (label in _NORMAL or label.startswith(_NORMAL_BEGIN)), label


def find_classes(labels: pd.Series, positive: Sequence[str] | None = None) -> Classes:
    """Find the two classes: labels that differ only in case or outer space are one, with its most frequent spelling.

    Args:
        labels: labels of n messages, strings.
        positive: labels that make up class 1, which is called like the first. By default class 1 is the one with a
            well-known name such as spam, or else the later in the alphabet.

    Raises:
        ValueError: there are not two classes.
    """
    spellings = labels.str.strip().groupby(without_case(labels)).agg(lambda same: same.value_counts().index[0])
    names: dict[str, str] = spellings.to_dict()
    shown = ", ".join(map(repr, list(names.values())[:5])) + (", …" if len(names) > 5 else "")
    if positive is None:
        if len(names) != 2:
            example = " ".join(list(names.values())[-2:]) if len(names) > 2 else "spam"
            raise ValueError(
                f"The classifier needs exactly two labels; the data has {len(names)}: {shown}. Several can be put "
                f"into class 1, the one to detect, such as --positive_label {example}."
            )
        detected = [max(names, key=_likely_class_1)]
    else:
        detected = [label.strip().casefold() for label in positive]
        if unknown := [label for label, folded in zip(positive, detected, strict=True) if folded not in names]:
            raise ValueError(f"--positive_label {unknown[0]!r} is none of the labels {shown}.")
    rest = [label for label in names if label not in detected]
    if len(rest) != 1:
        raise ValueError(
            f"--positive_label must leave one label for class 0; it leaves {len(rest)}: "
            f"{', '.join(repr(names[label]) for label in rest)}."
        )
    ids = dict.fromkeys(rest, 0) | dict.fromkeys(detected, 1)
    return Classes((names[rest[0]], names[detected[0]]), ids)
