"""The figures follow the textbook definitions, and the TF-IDF baseline really learns."""

import math
import re
import warnings

import numpy as np
import pytest
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.text import Text
from scipy.special import expit
from shared import make_messages

from gpt_classification_model import make_splits
from text_classifier.classifier import Joint
from text_classifier.metrics import calibration_error, classification_metrics, results_table
from text_classifier.tfidf import fit_tfidf
from text_classifier.training.charts import CHINESE_FONTS, lacking, plot_metrics, plot_reliability
from text_classifier.training.data import HELD_OUT
from text_classifier.training.evaluation import JOINT, compare_models, evaluate, predictions_together, tfidf_predictions
from text_classifier.training.report import summarise


def test_metrics_of_a_case_worked_by_hand():
    metrics = classification_metrics([0, 0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9, 0.4])
    assert metrics["confusion_matrix"] == [[2, 1], [1, 1]]
    assert metrics["accuracy"] == 0.6 and metrics["false_positive_rate"] == pytest.approx(1 / 3)
    assert metrics["precision"] == metrics["recall"] == metrics["f1"] == 0.5
    assert metrics["roc_auc"] == pytest.approx(5 / 6)
    assert metrics["loss"] == pytest.approx(-np.mean(np.log([0.9, 0.8, 0.2, 0.9, 0.4])))


def test_threshold_moves_the_decision_only():
    low, high = (classification_metrics([0, 1], [0.4, 0.6], threshold) for threshold in (0.3, 0.7))
    assert low["confusion_matrix"] == [[0, 1], [0, 1]] and high["confusion_matrix"] == [[1, 0], [1, 0]]
    assert low["loss"] == high["loss"] and low["roc_auc"] == high["roc_auc"] == 1


def test_one_class_or_no_messages_leave_undefined_figures_empty():
    only_ham = classification_metrics([0, 0], [0.1, 0.9])
    assert only_ham["false_positive_rate"] == 0.5 and only_ham["recall"] is None and only_ham["roc_auc"] is None
    nothing = classification_metrics([], [])
    assert nothing["n"] == 0 and nothing["accuracy"] is None
    table = results_table({"model": {"left_out": only_ham, "test": nothing}})
    assert "left out" in table and "–" in table and table.count("\n") == 2, "a split without messages has no row"


def test_baseline_learns():
    splits = make_splits(make_messages(), ("ham", "spam"))
    model = fit_tfidf(splits["train"]["Text"].tolist(), splits["train"]["Label"].tolist())
    predictions = tfidf_predictions(model, {"test": splits["test"], "none": splits["test"][:0]})
    assert classification_metrics(*predictions["test"])["accuracy"] == 1
    assert len(predictions["none"][1]) == 0


def test_threshold_is_chosen_on_validation_messages_alone():
    ham = np.linspace(0, 0.4, 201)
    predictions = {
        "validation": (np.array([0, 1]), np.array([0.4, 0.3])),
        "left_out_validation": (np.zeros(201, dtype=int), ham),
        "test": (np.array([0, 1]), np.array([0.1, 0.45])),
        "left_out_test": (np.zeros(2, dtype=int), np.array([0.2, 0.9])),
    }
    rows, threshold = evaluate("model", predictions, false_positive_rate=0.02)
    assert (ham >= threshold).mean() == pytest.approx(0.02, abs=0.005)
    assert list(rows) == ["model, threshold 0.5", "model"]
    assert rows["model"]["test"]["recall"] == 1 and rows["model, threshold 0.5"]["test"]["recall"] == 0
    for rate in (None, 0.001):
        rows, threshold = evaluate("model", predictions, rate)
        assert threshold == 0.5 and list(rows) == ["model"], "too few messages to tell one in a thousand"


def test_calibration_error_of_a_case_worked_by_hand():
    # There are two bins. In one the mean probability is 0.1 and 1 of 4 is class 1; in the other 0.9 and 2 of 2.
    labels, probabilities = [0, 0, 0, 1, 1, 1], [0.1, 0.1, 0.1, 0.1, 0.9, 0.9]
    assert calibration_error(labels, probabilities) == pytest.approx((4 * 0.15 + 2 * 0.1) / 6)
    assert calibration_error([0, 1], [0.0, 1.0]) == 0 and calibration_error([], []) is None


def test_natural_ratio_is_test_and_left_out_together():
    pair = (np.array([0, 1]), np.array([0.1, 0.45]))
    left_out = (np.zeros(2, dtype=int), np.array([0.2, 0.9]))
    splits = {"validation": pair, "test": pair, "left_out_validation": left_out, "left_out_test": left_out}
    (row,) = evaluate("model", splits)[0].values()
    assert row["natural"]["confusion_matrix"] == [[2, 1], [1, 0]] and row["natural"]["n"] == 4


@pytest.mark.parametrize("n", [0, 1, 30, 903, 5000])
def test_reliability_chart_shows_every_message_in_bins_that_tell_something(n):
    """No line joins the bins, and the range of each says whose messages it has."""
    random = np.random.default_rng(n)
    labels = (random.random(n) < 0.12).astype(int)
    probabilities = expit(random.normal(np.where(labels, 6, -6), 3)).round(3)
    reliability, histogram = plot_reliability(labels, probabilities, "spam", "Held out").axes
    bins = [
        re.fullmatch(r"(\d+)–(\d+) %\n\((.+)\)", tick.get_text()).groups() for tick in reliability.get_xticklabels()
    ]
    counts = [int(count.replace(",", "")) for *_, count in bins]
    assert counts == [
        np.sum((probabilities >= int(low) / 100) & ((probabilities < int(high) / 100) | (high == "100")))
        for low, high, _ in bins
    ]
    assert sum(counts) == n == sum(bar.get_height() for bar in histogram.patches)
    assert len(counts) == {0: 0, 1: 1}.get(n, 6) and 0 not in counts
    assert all(len(line.get_xdata()) == 1 for line in reliability.lines)
    assert not reliability.texts, "no number that a curve could strike through"


def test_reliability_of_a_case_worked_by_hand():
    """Of 20 messages near 0 none is spam, of 20 near 1 all but one are; Wilson's intervals are those of a table."""
    labels, probabilities = np.repeat([0, 1, 0], [20, 19, 1]), np.repeat([0.002, 0.996], 20)
    reliability, _ = plot_reliability(labels, probabilities, "spam", "Held out").axes
    said, measured = reliability.collections[::2], reliability.collections[1::2]
    assert [line.get_segments()[0][0, 1] for line in said] == pytest.approx([0.002, 0.996])
    assert [line.get_segments()[0][:, 1] for line in measured] == [
        pytest.approx([0, 0.1611], abs=1e-4),
        pytest.approx([0.7639, 0.9911], abs=1e-4),
    ]


@pytest.mark.parametrize("fonts", [("No such font", "DejaVu Serif"), CHINESE_FONTS], ids=["no Chinese font", "one"])
def test_chinese_names_are_drawn_or_written_in_other_letters(fonts, tmp_path, monkeypatch):
    monkeypatch.setattr("text_classifier.training.charts.CHINESE_FONTS", fonts)
    if fonts == CHINESE_FONTS and lacking("垃圾信息"):
        pytest.skip("no Chinese font is installed")
    pages, save = [], PdfPages.savefig
    monkeypatch.setattr(PdfPages, "savefig", lambda self, figure: pages.append(figure) or save(self, figure))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = plot_reliability(np.array([0, 1]), np.array([0.1, 0.9]), "垃圾信息", "$5 in £$ and 数据.csv")
        plot_metrics([], tmp_path / "charts.pdf", "gpt2 on 数据.csv", more_pages=[page])
    texts = [text.get_text() for page in pages for text in page.findobj(Text)]
    data, label = ("数据", "垃圾信息") if fonts == CHINESE_FONTS else (r"\u6570\u636e", "class 1")
    assert {f"gpt2 on {data}.csv", rf"\$5 in £\$ and {data}.csv", f"Share of {label}", f"not {label}"} <= {*texts}


def test_what_two_models_say_together_in_a_case_worked_by_hand():
    """Weight 0.5 takes the root of the language model's odds; TF-IDF's odds and the intercept's are multiplied with it.

    The roots are 3 and 2, TF-IDF's odds are 1/3, and the intercept's are 2, so the joint odds are 2 and 4/3. In the
    third message the language model is certain, so it decides.
    """
    labels, joint = np.array([0, 1, 1]), Joint(0.5, 1.0, math.log(2))
    ours, theirs = np.array([0.9, 0.8, 1.0]), np.array([0.25, 0.25, 0.2])
    (kept, together) = predictions_together({"test": (labels, ours)}, {"test": (labels, theirs)}, joint)["test"]
    assert kept is labels and together == pytest.approx([2 / 3, 4 / 7, 1], abs=1e-6)


def test_a_language_model_that_is_of_no_use_is_told():
    """A random model after some steps may call everything ham, and TF-IDF hides it."""
    labels = np.array([0] * 80 + [1] * 20)
    good = np.where(labels == 1, 0.9, 0.1)

    def summary(language_model: np.ndarray) -> dict:
        after, tfidf = ({split: (labels, of) for split in HELD_OUT} for of in (language_model, good))
        return summarise(compare_models(after, after, tfidf, JOINT, None)[0], ("ham", "spam"))

    useless = summary(np.full(100, 0.45))
    assert useless["accuracy"] == {"language model alone": 0.8, "TF-IDF alone": 1.0, "both together": 1.0}
    assert "200 held-out messages: language model alone 80.0 %, TF-IDF alone 100.0 %" in useless["summary"]
    assert [warning.split(".")[0] for warning in useless["warnings"]] == [
        "The language model is not better than always answering ham",
        "The language model adds nothing to TF-IDF on these messages",
    ]
    assert summary(np.where(labels == 1, 0.99, 0.01))["warnings"] == [], "as often right, but surer of it"
