"""Measure how much each word of a message pushed the decision."""

import math
import re
from collections.abc import Callable, Sequence

import torch
from captum.attr import ShapleyValueSampling

from text_classifier.inference import Classification

# Chinese and Japanese put no spaces between words, so each character counts as a word.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]\s*|[^\s\u3040-\u30ff\u3400-\u9fff]+\s*")


def split_words(text: str, at_most: int) -> list[str]:
    """Cut a text into words; a text with more than `at_most` words is cut into groups of neighbouring words."""
    words = _WORD.findall(text)
    size = math.ceil(len(words) / at_most)
    return ["".join(words[start : start + size]) for start in range(0, len(words), size)] if words else []


def word_contributions(
    text: str,
    classify: Callable[[Sequence[str]], list[Classification]],
    permutations: int = 4,
    max_groups: int = 20,
) -> list[tuple[str, float]]:
    """Return how much each word of a message contributed to the answer: its Shapley value, by sampling.

    The words are added to an empty message one by one, in several random orders. Each word is credited with
    the mean change of the answer when it is added (Štrumbelj and Kononenko 2010, Captum's
    `ShapleyValueSampling`). The contributions add up to the difference between the whole message and an
    empty one. Integrated gradients, the usual method, do not converge on these models and name words that
    matter less (`benchmarks/explanations.py`).

    Args:
        text: a message with at least one visible character.
        classify: function that classifies n messages and returns n answers.
        permutations: number of random orders; the cost is this number times the number of words.
        max_groups: largest number of words; a message with more is cut into groups of neighbouring words.

    Returns:
        Each word or group with its contribution to the log odds of class 1; a negative one speaks for class 0.
        Joined together, the words are the text without its leading white space.
    """
    words = split_words(text, max_groups)

    def log_odds(masks: torch.Tensor) -> torch.Tensor:
        kept = ["".join(word for word, keep in zip(words, mask, strict=True) if keep) for mask in masks.tolist()]
        probabilities = [answer.positive_probability for answer in classify(kept)]
        return torch.tensor(probabilities, dtype=torch.float64).logit(eps=1e-7)

    with torch.random.fork_rng(devices=[]):
        # Seed the sampling, so that the same message gets the same explanation.
        torch.manual_seed(0)
        contributions = ShapleyValueSampling(log_odds).attribute(
            torch.ones(1, len(words), dtype=torch.int64),
            torch.zeros(1, len(words), dtype=torch.int64),
            n_samples=permutations,
            perturbations_per_eval=16,
        )
    return list(zip(words, contributions[0].tolist(), strict=True))
