"""Measure how much each word of a message pushed the decision."""

import math
import re
from collections.abc import Callable, Sequence

import numpy as np
import opencc
import rjieba
from scipy.special import logit

from text_classifier.classifier import Answer
from text_classifier.text import HAN

# A longer message is explained by groups of words: for each one the model reads the whole message again.
_MOST_GROUPS = 20

_TO_SIMPLIFIED = opencc.OpenCC("t2s")
# Marks where the dictionary cuts. Unicode reserves this character for programs, so no text has it.
_CUT = "\uffff"
_OPENING, _CLOSING = "（【《“‘「『", "，。！？；：、…）】》”’」』"
_WORD = re.compile(rf"[{_OPENING}{_CUT}]*[^\s{_OPENING}{_CLOSING}{_CUT}]*[\s{_CLOSING}{_CUT}]*")


def split_words(text: str, at_most: int) -> list[str]:
    """Cut a text into words; a text with more than `at_most` words is cut into groups of neighbouring words.

    White space and closing marks belong to the word before them, opening marks to the word behind.
    """
    marked = re.sub(f"[{HAN}]+", _cut_chinese, text.lstrip())
    words = [word.replace(_CUT, "") for word in _WORD.findall(marked) if word.strip(_CUT)]
    size = math.ceil(len(words) / at_most)
    return ["".join(words[start : start + size]) for start in range(0, len(words), size)] if words else []


def _cut_chinese(run: re.Match[str]) -> str:
    """Mark the words of Chinese, which has no spaces, by a dictionary of simplified characters."""
    # Traditional characters are replaced one by one, so the lengths are equal.
    simplified, marked, start = "".join(map(_TO_SIMPLIFIED.convert, run.group())), _CUT, 0
    for word in rjieba.cut(simplified):
        marked += run.group()[start : start + len(word)] + _CUT
        start += len(word)
    return marked


def word_contributions(text: str, classify: Callable[[Sequence[str]], list[Answer]]) -> list[tuple[str, float]]:
    """Return how much each word of a message contributed to the answer: how far it moves when the word is left out.

    Args:
        text: a message with at least one visible character.

    Returns:
        Each word or group with its contribution to the log odds of class 1; a negative one speaks for class 0.
        Joined together, the words are the text without its leading white space.
    """
    words = split_words(text, _MOST_GROUPS)
    without = ["".join(words[:index] + words[index + 1 :]) for index in range(len(words))]
    probabilities = [answer.probability for answer in classify(["".join(words), *without])]
    # A probability that was rounded to 0 or 1 has no finite log odds.
    whole, *parts = logit(np.clip(probabilities, 1e-7, 1 - 1e-7)).tolist()
    return [(word, whole - part) for word, part in zip(words, parts, strict=True)]
