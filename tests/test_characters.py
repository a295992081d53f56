"""A message with nothing to read is empty everywhere, and no answer depends on what else is in the batch."""

import shutil

import pandas as pd
import pytest
from conftest import make_messages
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from training_runs import arguments, run_here

from text_classifier import classify, load_tokenizer_and_model
from text_classifier.__main__ import main as score
from text_classifier.characters import is_empty, make_normalizer
from text_classifier.runtime import encode

NOTHING = {
    "zero-width space": "\u200b",
    "byte-order mark": "\ufeff",
    "soft hyphen": "\u00ad",
    "word joiner": "\u2060",
    "left-to-right mark": "\u200e",
    "accent alone": "\u0301",
    "variation selector": "\ufe0f",
    "Arabic vowel mark": "\u0650",
    "accent that normalises to a space": "\u00b4 \u00a8",
    "several of them": "\u200b \u0301\n\ufe0f",
    "Hangul filler": "\u3164",
    "empty Braille pattern": "\u2800",
    "control characters": "\x00\x07",
    "white space": " \t\n\u3000",
    "nothing at all": "",
}
SOMETHING = ["a", "7", "。", "好", "❤️", "🎁", "?", "é", "и\u0306", "\ud800", "ｆ", "ـ", "नि"]


@pytest.mark.parametrize("text", NOTHING.values(), ids=NOTHING.keys())
def test_what_nobody_can_read_is_empty(text):
    assert is_empty(text)


@pytest.mark.parametrize("text", SOMETHING)
def test_what_can_be_read_is_not_empty(text):
    assert not is_empty(text) and not is_empty(f"\u200b{text}\u0301")


@pytest.fixture(scope="module")
def normalizing_adapter(tmp_path_factory, tiny_gpt2):
    """The folder of a run whose tokenizer undoes letter tricks, and which had empty messages among its data."""
    folder = tmp_path_factory.mktemp("normalizing")
    messages = make_messages()
    nothing = pd.DataFrame({"Label": ["ham", "spam"] * 2, "Text": ["\u200b", "\u0301", "\ufe0f", "\u00b4"]})
    pd.concat([messages, nothing]).to_csv(folder / "messages.csv", index=False)
    flags = ["--normalize_text", "true", "--num_train_epochs", "1"]
    assert run_here(folder, arguments(tiny_gpt2, folder / "messages.csv", *flags)) == 0
    return folder


def test_training_leaves_empty_messages_out_and_counts_them(tmp_path, tiny_gpt2, normalizing_adapter, caplog):
    shutil.copy(normalizing_adapter / "messages.csv", tmp_path)
    argv = arguments(tiny_gpt2, tmp_path / "messages.csv", "--normalize_text", "true", "--num_train_epochs", "1")
    assert run_here(tmp_path, argv) == 0
    assert "4 rows without text or label are left out" in caplog.text
    written = pd.concat(pd.read_csv(file, keep_default_na=False) for file in (tmp_path / "dataset").glob("*.csv"))
    assert len(written) == 180 and not written["Text"].map(is_empty).any()


@pytest.fixture(scope="module")
def loaded(normalizing_adapter):
    return load_tokenizer_and_model(normalizing_adapter / "lora_model")


@pytest.mark.parametrize("text", NOTHING.values(), ids=NOTHING.keys())
def test_an_empty_message_gets_no_answer_and_changes_nobody_elses(loaded, text):
    neighbours = ["WIN a FREE prize now, call 10001", "see you at 7 tonight"]
    alone = [classify([neighbour], *loaded)[0] for neighbour in neighbours]
    first, nothing, second = classify([neighbours[0], text, neighbours[1]], *loaded)
    assert nothing is None and classify([text], *loaded) == [None]
    for together, expected in zip((first, second), alone, strict=True):
        assert together.positive_probability == pytest.approx(expected.positive_probability, abs=1e-5)


def test_an_empty_row_of_a_file_stays_without_a_label(normalizing_adapter, tmp_path, capsys):
    source, target = tmp_path / "between.csv", tmp_path / "scored.csv"
    rows = ["call 900 prize", *NOTHING.values(), "see you at lunch"]
    pd.DataFrame({"id": range(len(rows)), "Text": rows}).to_csv(source, index=False)
    argv = [str(source), "--output", str(target), "--adapter_dir", str(normalizing_adapter / "lora_model")]
    assert score(argv) == 0
    labels = pd.read_csv(target, keep_default_na=False)["predicted_label"].tolist()
    assert labels[1:-1] == [""] * len(NOTHING) and "" not in (labels[0], labels[-1])
    pd.DataFrame({"Text": ["\u200b"]}).to_csv(source, index=False)
    assert score(argv) == 0, "also where it is the only one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["between.csv", "scored.csv"]


ANY_TEXT = st.text(st.characters(), max_size=60) | st.text(
    st.sampled_from("\u200b\u0301\ufe0f\u00ad \u00b4aé好"), max_size=8
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ANY_TEXT, min_size=1, max_size=6))
def test_no_answer_depends_on_what_else_is_in_the_batch(loaded, texts):
    together = classify(texts, *loaded)
    for text, answer in zip(texts, together, strict=True):
        (alone,) = classify([text], *loaded)
        assert (answer is None) == (alone is None) == is_empty(text)
        if answer:
            assert answer.positive_probability == pytest.approx(alone.positive_probability, abs=1e-5)


@settings(max_examples=300, deadline=None)
@given(ANY_TEXT)
def test_what_is_not_empty_has_tokens_in_front_of_every_tokenizer(text):
    normalised = make_normalizer().normalize_str(text.encode("utf-8", "replace").decode())
    assert is_empty(text) or normalised.strip()


def test_a_text_that_is_not_empty_is_read_by_the_adapters_tokenizer(loaded):
    tokenizer, _ = loaded
    for ids in encode(SOMETHING, tokenizer)["input_ids"]:
        assert ids
