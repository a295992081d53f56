"""Results open in a spreadsheet and run nothing there."""

import csv
import io

import pandas as pd
import pytest

from chat.dropped_files import neutralise_formula, to_csv
from text_classifier.classifier import Answer
from text_classifier.scoring import add_answers


@pytest.mark.parametrize("cell", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1+1"])
def test_formulas_are_neutralised(cell):
    assert neutralise_formula(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["-5", "+44 20 7946 0958", "-1,234.5", "hello = world", "a@b.c", "", "5%"])
def test_numbers_and_text_stay_as_they_are(cell):
    assert neutralise_formula(cell) == cell


def test_result_has_every_row_and_column_in_order_and_opens_in_a_spreadsheet():
    table = pd.DataFrame({"predicted_label": ["x", "y", "z"], "=text": ["=1+1", "晚饭", ""]})
    names = {"labels": ("ham", "spam"), "threshold": 0.5}
    answers = [Answer(0.98765, True, "both", False, **names), Answer(0.2, False, "TF-IDF", True, **names), None]
    content = to_csv(add_answers(table, answers, "spam", 0.5))
    assert content.startswith(b"\xef\xbb\xbf"), "Excel takes the file for another encoding otherwise"
    rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    assert rows == [
        [
            "predicted_label",
            "'=text",
            "predicted_label_2",
            "spam_probability",
            "truncated",
            "answered_by",
            "other_language",
            "less_sure",
        ],
        ["x", "'=1+1", "spam", "0.9877", "true", "both", "false", "false"],
        ["y", "晚饭", "ham", "0.2000", "false", "TF-IDF", "true", "true"],
        ["z", "", "", "", "", "", "", ""],
    ]
