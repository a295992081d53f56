"""The benchmarks compute intervals, weights and tables correctly from their figures."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from benchmarks import accuracy, design_choices
from benchmarks.accuracy import ALL, ALONE, OURS, PUBLISHED, compare, paired_interval, repeated_interval
from benchmarks.left_out_kinds import SPAM_RATIO, likeliest_joint, table_by_kind
from text_classifier.files import write_json
from text_classifier.training.evaluation import BASELINE


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_interval_of_a_paired_difference_holds_it_and_narrows_with_messages():
    hits = np.array([True] * 95 + [False] * 5)
    other = np.array([True] * 90 + [False] * 10)
    low, high = paired_interval(hits, other)
    assert 0 <= low < 0.05 < high < 0.12
    low_of_many, high_of_many = paired_interval(np.tile(hits, 20), np.tile(other, 20))
    assert low < low_of_many < 0.05 < high_of_many < high
    assert paired_interval(hits, hits) == (0, 0)


def test_repeated_splits_have_a_wider_interval_than_independent_ones():
    differences = [0.001, 0.004, 0.002, 0.003, 0.0]
    low, high = repeated_interval(differences, test_messages=200, train_messages=700)
    # 2.776 is the 97.5 % quantile of Student's t with four degrees of freedom.
    usual = 2.776 * np.std(differences, ddof=1) / np.sqrt(5)
    assert low == pytest.approx(0.002 - usual * np.sqrt(1 + 5 * 200 / 700), abs=1e-5)
    assert high - 0.002 == pytest.approx(0.002 - low)


def test_runs_are_compared_on_the_same_messages(tmp_path):
    """This recipe misses one of four messages; its language model alone and TF-IDF miss two.

    Validation messages do not count.
    """
    rows = [("a", 0, "test", 0.05, 0.3, 0.9), ("b", 1, "test", 0.9, 0.4, 0.9), ("c", 0, "left_out_test", 0.2, 0.2, 0.2)]
    rows += [("d", 0, "left_out_test", 0.8, 0.8, 0.8), ("e", 1, "validation", 0.0, 1.0, 1.0)]
    sizes = {f"{left_out}{split}": 2 for left_out in ("", "left_out_") for split in ("train", "test")}
    for name in ("1", "1-published", "2"):
        (tmp_path / name).mkdir()
        columns = ["Text", "Label", "Split", "after + TF-IDF", "after", BASELINE]
        pd.DataFrame(rows, columns=columns).to_csv(tmp_path / name / "predictions.csv", index=False)
        report = {"saved": "after + TF-IDF", "decision_threshold": 0.5, "data": {"split_sizes": sizes}}
        write_json(report, tmp_path / name / "metrics.json")
    folders = {number: tmp_path / str(number) for number in (1, 2)}
    table = compare(folders, tmp_path / "1-published")
    # For seed and model the accuracy, and by how much ours is better.
    cells = map(cells_of, table.splitlines()[2:])
    rows = {(seed, model): (accuracy, gain.partition(" (")[0]) for seed, model, accuracy, *_, gain in cells}
    assert rows["1", OURS] == ("75.00", "") and rows[ALL, f"**{OURS}**"] == ("75.00 ± 0.00", "")
    assert rows["1", PUBLISHED] == ("75.00", "+0.00")
    for model in (ALONE, BASELINE):
        assert rows["1", model] == ("50.00", "+25.00")
        assert rows[ALL, f"**{model}**"] == ("50.00 ± 0.00", "+25.00")
    # The second seed counts in the mean alone.
    assert len(rows) == 7


def test_a_choice_is_measured_by_the_labels_that_are_right(tmp_path, monkeypatch):
    """Of four held-out messages this recipe is right on three; at 0.3, its threshold, the second is spam."""
    rows = [("a", 0, "test", 0.2, 0.6, 0.6), ("b", 1, "test", 0.3, 0.6, 0.2)]
    rows += [("c", 0, "left_out_test", 0.1, 0.1, 0.1), ("d", 0, "left_out_test", 0.4, 0.1, 0.6)]
    columns = ["Text", "Label", "Split", "both", "after", BASELINE]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "predictions.csv", index=False)
    write_json({"saved": "both", "decision_threshold": 0.3}, tmp_path / "metrics.json")
    kinds = ["modern", "modern", "chinese", "background"]
    messages = pd.DataFrame({"Kind": kinds, "Label": [1, 0, 1, 0], "Text": list("wxyz")})
    odds = pd.DataFrame({OURS: [1.0, -1, -1, -1], ALONE: [1.0, 1, 1, 1], BASELINE: [-1.0] * 4})
    monkeypatch.setattr(accuracy, "log_odds_of_run", lambda folder, texts: odds)
    expected = {OURS: [0.75, 1, 0, 1], ALONE: [0.75, 0.5, 1, 0], BASELINE: [0.25, 0.5, 0, 1]}
    assert design_choices.rights(tmp_path, messages) == expected


def test_the_formula_that_drew_the_labels_is_found_again_at_another_ratio():
    generator = np.random.default_rng(0)
    log_odds = generator.normal(0, 3, (40_000, 2))
    labels = generator.random(40_000) < expit(log_odds @ [0.5, 1.5] - 1)
    answers = pd.DataFrame({ALONE: log_odds[:, 0], BASELINE: log_odds[:, 1], "Label": labels.astype(int)})
    answers["Source"] = "one"
    joint = likeliest_joint(answers)
    # Weighing the classes anew moves the intercept alone, by the change of their log odds.
    expected = -1 + logit(SPAM_RATIO) - logit(labels.mean())
    assert (joint.language_model, joint.tfidf, joint.intercept) == pytest.approx((0.5, 1.5, expected), abs=0.15)


def test_kinds_left_out_are_counted_by_class():
    """Of 10 spam messages ours finds 9, of 10 ham ones it calls 2 spam; 9 messages are too few for a figure."""
    size = {("beauty", 1): 10, ("beauty", 0): 10, ("cars", 1): 9}
    rows = [("Chinese", *of_kind) for of_kind, number in size.items() for _ in range(number)]
    answers = pd.DataFrame(rows, columns=["Language", "Kind", "Label"])
    ours = [1.0] * 9 + [-1.0] + [1.0] * 2 + [-1.0] * 8 + [-1.0] * 9
    answers = answers.assign(**{OURS: ours, ALONE: 1.0, BASELINE: -1.0})
    _, _, beauty, cars, means = map(cells_of, table_by_kind(answers).splitlines())
    assert beauty[1:] == ["beauty", "90", "100", "20", "100", "10", "10"]
    assert cars[1:] == ["cars", *["–"] * 4, "9", "0"]
    assert means == ["**Chinese**", "**mean of the kinds**", "90", "100", "20", "100", "", ""]
