"""The messages made up for this project are trained on where asked for, and share nothing with those for testing."""

import re

import pandas as pd
import pytest
from shared import REPOSITORY
from test_data import uci_stand_in

from gpt_classification_model import load_splits
from text_classifier.errors import ConfigurationError
from text_classifier.text import HAN, simplify
from text_classifier.training.config import DataArguments
from text_classifier.training.data import read_labelled, read_made_up_messages, text_key


def test_modern_messages_share_no_five_words_with_those_for_testing():
    def runs_of_words(texts: pd.Series) -> set[tuple[str, ...]]:
        words = [text.split() for text in text_key(texts)]
        return {tuple(of_text[at : at + 5]) for of_text in words for at in range(len(of_text) - 4)}

    learned = read_made_up_messages("modern")
    tested = read_labelled(REPOSITORY / "tests/modern_messages.tsv")
    assert not runs_of_words(learned["Text"]) & runs_of_words(tested["Text"])
    assert not set(text_key(learned["Text"])) & set(text_key(tested["Text"]))
    assert learned["Label"].value_counts().to_dict() == {"ham": 1181, "spam": 955}
    assert not learned["Text"].str.contains(".example", regex=False).any(), "an ending that no real link has"


def test_chinese_messages_share_no_five_characters_with_those_for_testing():
    def runs_of_characters(texts: pd.Series) -> set[str]:
        runs = [run for text in texts for run in re.findall(f"[{HAN}]{{5,}}", simplify(text))]
        return {run[at : at + 5] for run in runs for at in range(len(run) - 4)}

    tested = read_labelled(REPOSITORY / "tests/chinese_messages.tsv")
    assert tested["Label"].value_counts().to_dict() == {"ham": 156, "spam": 156} and tested["Text"].is_unique
    learned = read_made_up_messages("chinese")
    assert not runs_of_characters(learned["Text"]) & runs_of_characters(tested["Text"])
    assert not set(text_key(learned["Text"])) & set(text_key(tested["Text"]))
    assert learned["Label"].eq("ham").mean() == pytest.approx(0.5, abs=0.06), "about half of them are ham"
    assert not text_key(learned["Text"]).duplicated().any()
    assert not learned["Text"].str.contains(r"\.example|1[3-9]\d{9}").any(), "no real link or telephone number"


def test_short_messages_for_testing_are_never_trained_on():
    short = read_labelled(REPOSITORY / "tests/short_messages.tsv")
    assert len(short) >= 60 and short["Label"].eq("ham").mean() == pytest.approx(0.5, abs=0.02)
    modern, chinese = (set(text_key(read_made_up_messages(name)["Text"])) for name in ("modern", "chinese"))
    assert not (modern | chinese) & set(text_key(short["Text"]))
    assert not modern & chinese, "one of the two would be dropped, and the counts in the documents be wrong"


@pytest.mark.parametrize("language", ["modern", "chinese"])
def test_every_made_up_message_has_its_kind(language):
    """`dataset/README.md` names the kinds; what one kind of message is called can be measured without it."""
    kinds = read_made_up_messages(language)["Kind"]
    assert kinds.ne("").all() and kinds.value_counts().gt(10).all()


def test_kinds_of_made_up_messages_can_be_left_out(tmp_path):
    uci_stand_in(tmp_path)
    wanted = {"dataset_dir": str(tmp_path), "extra_data": ["chinese"], "left_out_kinds": ["beauty", "school"]}
    splits = load_splits(DataArguments(**wanted))[0]
    kinds = read_made_up_messages("chinese").set_index("Text")["Kind"]
    learned = set(kinds[splits["chinese"]["Text"]])
    assert learned == set(kinds) - {"beauty", "school"}
    with pytest.raises(ConfigurationError, match=r"beuaty.*: the kinds are authorities, bank_products, beauty"):
        load_splits(DataArguments(**wanted | {"left_out_kinds": ["beuaty"]}))


def test_made_up_messages_are_trained_on_besides_the_collection_alone(tmp_path, messages_csv):
    uci_stand_in(tmp_path)
    both = ["modern", "chinese"]
    more, names, data = load_splits(DataArguments(dataset_dir=str(tmp_path), extra_data=both))
    without, _, other = load_splits(DataArguments(dataset_dir=str(tmp_path), extra_data=["none"]))
    assert names == ("ham", "spam") and set(more) - set(without) == set(both)
    assert more["modern"]["Label"].value_counts().to_dict() == {0: 1181, 1: 955} and len(more["chinese"]) > 1_000
    assert (data.languages, other.languages) == (["en", "zh"], ["en"])
    assert "also takes 2,136 modern messages" in data.description
    assert "Chinese messages" in data.description and "Chinese" not in other.description
    for name, part in without.items():
        pd.testing.assert_frame_equal(more[name], part)
    own = load_splits(DataArguments(data_file=str(messages_csv), extra_data=both))[0]
    assert set(own) == set(without)
