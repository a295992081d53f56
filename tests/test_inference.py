"""Messages can be given in every form that Python programs have them in, and a mistake is named."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from text_classifier import classify, load_tokenizer_and_model

TEXTS = ["WIN a FREE prize now", "see you at seven", "call 12345 to claim", "", "ok"]


@pytest.fixture(scope="module")
def loaded(tiny_review_adapter):
    return load_tokenizer_and_model(tiny_review_adapter)


@pytest.mark.parametrize(
    "give",
    [
        lambda texts: pd.Series(texts, index=[4, 2, 0, 1, 3]),
        lambda texts: pd.Series(texts, index=list("abcde")),
        lambda texts: pd.Series([*texts, "x"], dtype="str").iloc[:-1],
        np.array,
        pa.array,
        lambda texts: pa.chunked_array([texts]),
        tuple,
        iter,
        lambda texts: dict(enumerate(texts)).values(),
    ],
)
@pytest.mark.parametrize("exact", [True, False])
def test_answers_come_in_the_order_of_the_messages(loaded, give, exact):
    answers = classify(give(TEXTS), *loaded, exact=exact)
    assert answers == classify(TEXTS, *loaded, exact=exact) and answers[3] is None
    assert len({answer.positive_probability for answer in answers if answer}) > 1


@pytest.mark.parametrize("one", ["WIN a prize", b"WIN a prize"])
def test_one_message_is_no_list_of_characters(loaded, one):
    with pytest.raises(TypeError, match=r"for a single one write \[text\]"):
        classify(one, *loaded)


@pytest.mark.parametrize("wrong", [None, float("nan"), pd.NA, 7, b"bytes", ["hi"]])
def test_what_is_not_a_string_is_named_with_its_position(loaded, wrong):
    with pytest.raises(TypeError, match="position 1 is not a string"):
        classify(["hi", wrong], *loaded)


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan"), 50])
def test_a_threshold_lies_between_0_and_1(loaded, threshold):
    with pytest.raises(ValueError, match="between 0 and 1"):
        classify(["hi"], *loaded, threshold)
