"""Which words pushed a decision, and how strongly."""

import math
import re
from collections.abc import Callable, Sequence

import torch
from captum.attr import ShapleyValueSampling

from text_classifier.inference import Classification

# Chinese and Japanese do not put spaces between words: each character counts as one.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]\s*|[^\s\u3040-\u30ff\u3400-\u9fff]+\s*")


def split_words(text: str, at_most: int) -> list[str]:
    """Cut a text into its words, or into `at_most` groups of neighbours where there are more of them."""
    words = _WORD.findall(text)
    size = math.ceil(len(words) / at_most)
    return ["".join(words[start : start + size]) for start in range(0, len(words), size)] if words else []


def word_contributions(
    text: str,
    classify: Callable[[Sequence[str]], list[Classification]],
    permutations: int = 4,
    max_groups: int = 20,
) -> list[tuple[str, float]]:
    """Share the decision out among the words of a message: their Shapley values, by sampling.

    Words are put into an empty message in random orders, and each is credited with how far its arrival
    moves the answer, averaged over the orders (Štrumbelj and Kononenko 2010, Captum's
    `ShapleyValueSampling`). The contributions add up to what the whole message differs from an empty one.
    Integrated gradients do not converge on these models and name words that matter less
    (`benchmarks/explanations.py`).

    Args:
        text: a message with at least one visible character.
        classify: answers n messages.
        permutations: random orders; their number times the number of words is the cost.
        max_groups: neighbouring words are taken together where a message has more.

    Returns:
        Each word or group with its contribution to the log-odds of class 1; negative speaks for class 0.
        Put together, the words are the text without its leading white space.
    """
    words = split_words(text, max_groups)

    def log_odds(masks: torch.Tensor) -> torch.Tensor:
        kept = ["".join(word for word, keep in zip(words, mask, strict=True) if keep) for mask in masks.tolist()]
        probabilities = [answer.positive_probability for answer in classify([part or " " for part in kept])]
        return torch.tensor(probabilities, dtype=torch.float64).logit(eps=1e-7)

    with torch.random.fork_rng(devices=[]):
        # The same message gets the same explanation.
        torch.manual_seed(0)
        contributions = ShapleyValueSampling(log_odds).attribute(
            torch.ones(1, len(words), dtype=torch.int64),
            torch.zeros(1, len(words), dtype=torch.int64),
            n_samples=permutations,
            perturbations_per_eval=16,
        )
    return list(zip(words, contributions[0].tolist(), strict=True))
