"""Data are parsed correctly, no message is in two splits, and unusable files give clear errors."""

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from shared import REPOSITORY, make_messages
from torch.utils.data import DataLoader
from transformers import AutoTokenizer

from gpt_classification_model import SpamDataset, create_balanced_dataset, load_splits, make_splits, random_split
from text_classifier.errors import ConfigurationError
from text_classifier.extras import review_snippets
from text_classifier.reading.messages import ReadOptions
from text_classifier.sources import datasets
from text_classifier.sources.datasets import DataFile, read_background, read_sms_spam
from text_classifier.text import has_chinese
from text_classifier.training.config import DataArguments
from text_classifier.training.data import drop_duplicates, read_classes, read_labelled
from text_classifier.training.trainer import LengthGroups, training_set


def test_stray_quotes_swallow_no_messages(tmp_path):
    path = tmp_path / "sms.tsv"
    path.write_text('ham\t"hello\nspam\tWIN now\nham\tbye"\nham\tNA\n', encoding="utf-8")
    assert read_sms_spam(path)["Text"].tolist() == ['"hello', "WIN now", 'bye"', "NA"]
    assert len(read_sms_spam(path, quoting=csv.QUOTE_MINIMAL)) == 2


def test_duplicates_are_found_across_case_space_and_punctuation():
    texts = ["Free entry!", "free  ENTRY", "free entry 2", ":)", ":-(", "免费 领取", "免费，领取"]
    kept = drop_duplicates(pd.DataFrame({"Label": "ham", "Text": texts}))["Text"].tolist()
    assert kept == ["Free entry!", "free entry 2", ":)", ":-(", "免费 领取"]


def test_balancing_takes_as_many_of_each_label_and_keeps_every_rare_one():
    messages = make_messages(ham=120, spam=60)
    balanced = create_balanced_dataset(messages)
    assert balanced["Label"].value_counts().to_dict() == {"ham": 60, "spam": 60}
    assert set(messages.index[messages["Label"] == "spam"]) <= set(balanced.index)
    assert balanced.equals(create_balanced_dataset(messages))


def test_split_has_the_published_sizes():
    parts = random_split(pd.DataFrame({"Label": 0, "Text": range(1494)}))
    assert [len(part) for part in parts] == [1045, 149, 300]
    assert sorted(pd.concat(parts)["Text"]) == list(range(1494))


def test_no_message_stands_in_two_splits():
    splits = make_splits(make_messages(ham=200, spam=60), ("ham", "spam"))
    texts = [text for table in splits.values() for text in table["Text"]]
    assert len(texts) == len(set(texts)) == 260
    assert set(splits["left_out_test"]["Label"]) == {0}
    assert [len(splits[name]) for name in ("train", "validation", "test")] == [84, 12, 24]


def test_original_protocol_parses_and_keeps_duplicates_as_published(tmp_path, monkeypatch):
    lines = [f"{label}\t{text}" for label, text in make_messages(ham=40, spam=20).values]
    path = tmp_path / "sms.tsv"
    path.write_text("\n".join([*lines, *lines, 'ham\t"swallows', 'ham\tthe next"', ""]))
    monkeypatch.setattr("text_classifier.training.data.resolve_sms_spam", lambda *_: DataFile(path, "test", "0"))
    for protocol, sizes in {"original": (121, 0, 121), "deduplicated": (122, 60, 62)}.items():
        splits, names, data = load_splits(DataArguments(protocol=protocol))
        assert names == ("ham", "spam")
        assert (data.messages, data.duplicates, sum(map(len, splits.values()))) == sizes


def uci_stand_in(folder: Path) -> Path:
    """Write a file with the published counts of UCI's, including two pairs of stray quotes; return its path."""
    quoted = ['ham\t"a quote opens', 'ham\tand closes"'] * 2
    ham = [f"ham\tsee you at {number}" for number in range(4827 - len(quoted))]
    path = folder / "SMSSpamCollection.tsv"
    path.write_text("\n".join([*ham, *quoted, *(f"spam\tWIN {number}" for number in range(747)), ""]))
    return path


@pytest.mark.parametrize("whose", ["stand-in", "UCI's"])
def test_original_protocol_gives_the_published_loaders(tmp_path, tiny_gpt2, monkeypatch, whose):
    """The 1,045 / 149 / 300 messages make 130 / 19 / 38 batches of 8; training drops its last, smaller batch."""
    path = REPOSITORY / "dataset/SMSSpamCollection.tsv" if whose == "UCI's" else uci_stand_in(tmp_path)
    if not path.is_file():
        pytest.skip("UCI's file was not downloaded")
    monkeypatch.setattr("text_classifier.training.data.resolve_sms_spam", lambda *_: DataFile(path, "test", "0"))
    splits, _, data = load_splits(DataArguments(protocol="original"))
    assert data.messages == 5572
    tokenizer, batches = AutoTokenizer.from_pretrained(tiny_gpt2), {}
    for name in ("train", "validation", "test"):
        splits[name].to_csv(tmp_path / f"{name}.csv", index=False)
        dataset = SpamDataset(tmp_path / f"{name}.csv", tokenizer, 120)
        batches[name] = len(DataLoader(dataset, 8, drop_last=name == "train"))
    assert batches == {"train": 130, "validation": 19, "test": 38}


def test_too_few_messages_are_refused():
    with pytest.raises(ConfigurationError, match="at least 10"):
        make_splits(make_messages(ham=50, spam=9), ("ham", "spam"))


def test_an_unusable_file_is_named_with_what_to_do(tmp_path):
    path = tmp_path / "columns.csv"
    path.write_text("category,Text\nham,hello\n")
    with pytest.raises(ConfigurationError, match=r"columns.csv: .*no column 'Label', only 'category', 'Text'"):
        read_labelled(path, ReadOptions(text_column=["Text"], label_column="Label"))


def test_rows_without_text_or_label_are_left_out_and_words_like_null_are_kept(tmp_path, caplog):
    path = tmp_path / "mine.tsv"
    rows = "kind\tbody\nok\thello\nok\t\n\tlost\n ok \tnull\nok\t  \nbad\tNA\nNaN\thi\nnull\thi\nN/A\tbye\nnone\tyes\n"
    path.write_text(rows, encoding="utf-8-sig")
    messages = read_labelled(path, ReadOptions(text_column=["body"], label_column="kind"))
    assert messages.values.tolist() == [["ok", "hello"], ["ok", "null"], ["bad", "NA"], ["none", "yes"]]
    assert "6 rows" in caplog.text


# Class 0 and class 1; no name but class 1's tells which is detected, whatever the alphabet says.
CLEAR_PAIRS = (
    "ham/spam, safe/fraud, ham/Spam, HAM/advert, 正常短信/垃圾短信, 非诈骗短信/诈骗短信, 0.0/1.0, False/True, -1/1, "
    "Safe Email/Phishing Email, zzz mail/Phishing_SMS, not_spam/is_spam, nonspam/Spam, non-scam/scam, "
    "0 risk/malicious, spam-free/spam, unspam/spam, anti-spam/spam, real/fake, "
    "合法/非法, 合法短信/非法短信, 合法/不合法, 正常/违法, 普通邮件/钓鱼邮件"
)


@pytest.mark.parametrize(
    ("labels", "positive", "names"),
    [
        *((pair.split("/"), None, pair) for pair in CLEAR_PAIRS.split(", ")),
        (["spam", "ham", "spam"], None, "ham/spam"),
        (["a", "b"], ["a"], "b/a"),
        (["Ham", "ham", "ham", " spam"], None, "ham/spam"),
        (["ham", "spam", "Smishing"], ["spam", "smishing"], "ham/spam"),
        (["chat", "work", "news", "spam"], ["spam"], "not spam/spam"),
    ],
)
def test_class_1_is_what_is_detected(labels, positive, names):
    for given in (labels, labels[::-1]):
        classes = read_classes(pd.Series(given), positive)
        assert classes.clear and "/".join(classes.names) == names
        detected = [label.casefold() for label in positive or [classes.names[1]]]
        assert classes.ids_of(pd.Series(given)).tolist() == [label.strip().casefold() in detected for label in given]


@pytest.mark.parametrize(
    "labels", [["1", "2"], ["cats", "dogs"], ["spam", "scam"], ["ham", "ok"], ["free", "paid"], ["anti", "pro"]]
)
def test_which_label_to_detect_is_told_loudly_where_the_names_do_not_tell(labels, caplog):
    classes = read_classes(pd.Series(labels))
    first, second = sorted(labels)
    assert classes.names == (first, second) and not classes.clear
    assert f"DO NOT TELL WHICH OF THEM TO DETECT. It is '{second}'" in caplog.text
    assert f"--positive_label {first}" in caplog.text and caplog.records[0].levelname == "WARNING"


@pytest.mark.parametrize(
    ("labels", "positive", "message"),
    [
        (["a"], None, "has 1: 'a'.$"),
        (["ham"], ["ham"], "has 1"),
        (["ham", "spam", "smishing"], None, "has 3: .*--positive_label"),
        (["a", "b"], ["c"], "none of the labels"),
        (["ham", "spam"], ["spam", "ham"], "names all labels, 'ham', 'spam'"),
    ],
)
def test_other_than_two_classes_are_refused(labels, positive, message):
    with pytest.raises(ConfigurationError, match=message):
        read_classes(pd.Series(labels), positive)


def test_messages_with_both_labels_are_left_out_and_told(tmp_path, caplog):
    messages = make_messages(ham=40, spam=20)
    both = messages.head(12).assign(Label="spam")
    pd.concat([messages, both, messages.tail(3)]).to_csv(tmp_path / "mine.csv", index=False)
    splits, _, data = load_splits(DataArguments(data_file=str(tmp_path / "mine.csv")))
    assert sum(map(len, splits.values())) == 48 and data.duplicates == 3
    assert "24 rows left out whose message has both labels" in data.description
    assert "12 messages have both labels" in caplog.text and "see you at 0 tonight" in caplog.text


def test_a_test_file_of_its_own_is_tested_on_and_never_trained_on(tmp_path):
    messages = make_messages(ham=60, spam=30)
    test = pd.concat([make_messages(ham=70, spam=40).tail(40).tail(10), messages.head(20)])
    messages.to_csv(tmp_path / "mine.csv", index=False)
    test.to_json(tmp_path / "test.jsonl", orient="records", lines=True)
    paths = {"data_file": str(tmp_path / "mine.csv"), "test_file": str(tmp_path / "test.jsonl")}
    splits, _, data = load_splits(DataArguments(**paths))
    tested = pd.concat([splits["test"], splits["left_out_test"]])
    assert set(tested["Text"]) == set(test["Text"])
    others = pd.concat([part["Text"] for name, part in splits.items() if not name.endswith("test")])
    assert set(others) == set(messages["Text"]) - set(test["Text"])
    assert "tested on test.jsonl" in data.description
    assert data.sha256 != load_splits(DataArguments(data_file=paths["data_file"]))[2].sha256


def test_the_well_known_spam_csv_is_read_without_any_option(tmp_path, caplog):
    """It has columns v1 and v2, three without a name, is cp1252, and a few messages go on in those three."""
    rows = [f"ham,see you at {number},,,\n" for number in range(60)]
    rows += [f'spam,"WIN £{number}, call now",,,\n' for number in range(30)] + [
        "spam,Your free ringtone,PO Box 5249,,\n"
    ]
    (tmp_path / "spam.csv").write_bytes(("v1,v2,,,\n" + "".join(rows)).encode("cp1252"))
    with caplog.at_level("INFO"):
        messages = read_labelled(tmp_path / "spam.csv")
    assert messages["Label"].value_counts().to_dict() == {"ham": 60, "spam": 31}
    assert messages["Text"].iloc[-2:].tolist() == ["WIN £29, call now", "Your free ringtone,PO Box 5249"]
    for said in ("cp1252", "put together again: 1", "messages are in the column 'v2'", "labels are in the column 'v1'"):
        assert said in caplog.text


def test_dataset_tokenises_any_text_and_cuts_at_max_length(tmp_path, tiny_gpt2):
    texts = ["short", "word " * 200, 'quotes " and, commas', "line\nbreak\r\n", "NA", "tail <|endoftext|>"]
    pd.DataFrame({"Label": [0, 1, 0, 1, 0, 1], "Text": texts}).to_csv(tmp_path / "split.csv", index=False)
    tokenizer = AutoTokenizer.from_pretrained(tiny_gpt2)
    whole, cut = (SpamDataset(tmp_path / "split.csv", tokenizer, limit) for limit in (None, 20))
    assert whole.max_length > 200
    assert [tokenizer.decode(whole[index]["input_ids"]) for index in range(6)] == texts
    assert tokenizer.eos_token_id not in whole[5]["input_ids"], "typed special tokens are plain text"
    assert cut.max_length == 20 and cut[1]["labels"] == 1


def test_an_epoch_has_messages_of_like_length_together_and_can_be_repeated():
    messages = [{"input_ids": [0] * (1 + index * 37 % 101)} for index in range(637)]
    lengths = [len(message["input_ids"]) for message in messages]
    sampler = LengthGroups(messages, group_size=16, seed=1)
    epochs = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
    assert epochs[0] == epochs[2] != epochs[1], "a resumed epoch sees the same order"
    assert sorted(epochs[0]) == list(range(637))
    longest = [max(lengths[index] for index in epochs[0][start : start + 16]) for start in range(0, 637, 16)]
    assert 16 * sum(longest) < 1.3 * sum(lengths), "hardly any padding; in random order it is almost twofold"
    assert longest[:-1] != sorted(longest[:-1], reverse=True), "the groups do not come longest first"


def test_an_epoch_takes_every_message_once_and_the_rarer_class_as_often_as_asked_for():
    class Messages(list):
        labels = property(lambda self: [message["labels"] for message in self])

    def taken(**options) -> Counter:
        return Counter(message["labels"] for message in training_set(datasets, DataArguments(**options)))

    parts = {"train": (0, 0, 1, 1), "left_out_train": (0, 0, 0), "feedback": (1,), "modern": (0, 1), "test": (0,)}
    datasets = {name: Messages({"labels": label} for label in labels) for name, labels in parts.items()}
    assert taken() == {0: 3, 1: 4}, "the balanced messages, the correction and the modern ones"
    assert taken(minority_repeats=1) == {0: 6, 1: 4}
    assert taken(minority_repeats=2) == {0: 6, 1: 6}, "a correction is not repeated"
    assert taken(minority_repeats=9) == {0: 6, 1: 7}, "never more than the other class"


def test_review_snippets_are_those_clearly_for_or_against():
    rated = pd.DataFrame({"rating": [0.5, -0.5, 0.49, 3.9, 0], "text": ['Good "fun', "Dull", "So so", "Superb", "A"]})
    snippets = review_snippets.label_snippets(rated)
    assert snippets.values.tolist() == [['Good "fun', "positive"], ["Dull", "negative"], ["Superb", "positive"]]


@pytest.mark.registry
def test_review_snippets_come_from_the_pinned_package_alone(capfd, monkeypatch, tmp_path):
    target = tmp_path / "review_snippets.csv"
    monkeypatch.setattr(review_snippets, "TARGET", target)
    assert review_snippets.main() == 0
    assert "4,996 positive and 5,076 negative" in capfd.readouterr().out
    made = target.read_bytes()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    wrong = replace(datasets.VADER_MIRROR, source_sha256="0" * 64)
    monkeypatch.setattr(datasets, "VADER_MIRROR", wrong)
    assert review_snippets.main() == 1
    error = capfd.readouterr().err
    assert "Error: pip could not download" in error and "setup.py" not in error.partition("Expected")[0]
    assert target.read_bytes() == made


@pytest.mark.registry
def test_background_texts_to_train_on_and_to_test_on_come_from_different_sources():
    learned, tested = read_background(), read_background("test")
    assert not set(learned["Source"]) & set(tested["Source"]) and not set(learned["Text"]) & set(tested["Text"])
    for texts in (learned["Text"], tested["Text"]):
        assert len(texts) >= 1_000 and 0.3 < texts.map(has_chinese).mean() < 0.7
    assert learned["Text"].is_unique and learned["Text"].str.len().between(4, 160).all()
    pd.testing.assert_frame_equal(learned, read_background())
    validated = read_background("validation")
    assert len(validated) == len(learned) and not set(validated["Text"]) & set(learned["Text"])
