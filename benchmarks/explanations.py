"""Measure whether explanations name the words that matter: sampled Shapley values against other methods.

    python -m benchmarks.explanations

Each method explains test messages of the shipped adapter, and is judged in two ways. First, the words that
the method calls most important are removed: if they really are, the answer moves far. Second, its values
are compared with Shapley values of many more samples. Times are for one message alone.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import torch
from captum.attr import IntegratedGradients

from benchmarks.common import ADAPTER, shipped_splits
from chat.explanation import split_words, word_contributions
from text_classifier.inference import classify_parts, encode, fast_dtype, load_tokenizer_and_model


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--messages", type=int, default=20, help="per class")
    arguments = parser.parse_args()
    test = shipped_splits()["test"]
    # These messages have enough words to choose from, and few enough that each word counts on its own.
    test = test[test["Text"].str.split().str.len().between(5, 20)]
    texts = test.groupby("Label")["Text"].apply(lambda group: group.sample(arguments.messages, random_state=0)).tolist()
    tokenizer, model = load_tokenizer_and_model(ADAPTER, fast_dtype())
    # Gradients can explain only the language model, so TF-IDF is left out.
    model.tfidf = None
    exact_model = load_tokenizer_and_model(ADAPTER, torch.float32)[1]
    gaps = defaultdict(list)

    def ask(some: list[str]) -> list:
        return classify_parts(some, tokenizer, model)

    def log_odds(text: str) -> float:
        return float(torch.tensor(ask([text])[0].positive_probability, dtype=torch.float64).logit(eps=1e-7))

    def shapley(permutations: int) -> Callable[[str], np.ndarray]:
        return lambda text: np.array([value for _, value in word_contributions(text, ask, permutations)])

    def leave_one_out(text: str) -> np.ndarray:
        words = split_words(text, 20)
        without = ["".join(words[:index] + words[index + 1 :]) for index in range(len(words))]
        return log_odds(text) - np.array([log_odds(part) for part in without])

    def integrated_gradients(steps: int) -> Callable[[str], np.ndarray]:
        """Return a method that integrates gradients on the embeddings, from zero, in float32.

        Source: Sundararajan et al. 2017.
        """

        def contributions(text: str) -> np.ndarray:
            (encoding,) = encode([text], tokenizer, tokenizer.model_max_length).encodings
            embeddings = exact_model.get_input_embeddings()(torch.tensor([encoding.ids])).detach()
            attribution, gap = IntegratedGradients(
                lambda rows: (lambda logits: logits[:, 1] - logits[:, 0])(exact_model(inputs_embeds=rows).logits)
            ).attribute(embeddings, n_steps=steps, internal_batch_size=16, return_convergence_delta=True)
            gaps[steps].append(abs(float(gap)))
            words = split_words(text, 20)
            ends = np.cumsum([len(word) for word in words])
            result = np.zeros(len(words))
            for (start, _), value in zip(encoding.offsets, attribution.sum(-1)[0].tolist(), strict=True):
                result[min(np.searchsorted(ends, start, side="right"), len(words) - 1)] += value
            return result

        return contributions

    random = np.random.default_rng(0)
    methods = {
        "Shapley, 4 orders (the chat)": shapley(4),
        "Shapley, 1 order": shapley(1),
        "leave one word out": leave_one_out,
        "integrated gradients, 8 steps": integrated_gradients(8),
        "integrated gradients, 64 steps": integrated_gradients(64),
        "random": lambda text: random.normal(size=len(split_words(text, 20))),
    }
    reference = shapley(32)
    moves, agreements, seconds = defaultdict(list), defaultdict(list), defaultdict(list)
    for text in texts:
        text = text.strip()
        words, answer, truth = split_words(text, 20), log_odds(text), reference(text)
        for name, method in methods.items():
            started = time.perf_counter()
            contributions = method(text)
            seconds[name].append(time.perf_counter() - started)
            for_answer = np.argsort(-np.sign(answer) * contributions)[: max(1, round(0.3 * len(words)))]
            rest = "".join(word for index, word in enumerate(words) if index not in for_answer)
            moves[name].append(np.sign(answer) * (answer - log_odds(rest)))
            agreements[name].append(np.corrcoef(contributions, truth)[0, 1])

    print(f"\n{'':32} {'moves the answer by':>20} {'agrees (r)':>11} {'seconds':>8}")
    for name in methods:
        means = [np.mean(measured[name]) for measured in (moves, agreements, seconds)]
        print("{:32} {:15.2f} nats {:11.2f} {:8.2f}".format(name, *means))
    print(f"\nOver {len(texts)} test messages; the most important 30 % of the words removed.")
    for steps, values in gaps.items():
        print(f"Integrated gradients, {steps} steps: off by {np.median(values):.1f} nats (median; 0 if converged).")


if __name__ == "__main__":
    main()
