"""Empty messages, letter tricks and other languages are recognised, in training and in serving alike."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shared import REPOSITORY, make_messages, save_wordpiece_tokenizer
from training_runs import arguments, run_here
from transformers import AutoTokenizer, GPT2TokenizerFast

from text_classifier.__main__ import main as score
from text_classifier.classifier import Classifier
from text_classifier.runtime import encode
from text_classifier.sources.weights import resolve_base_model
from text_classifier.text import is_empty, is_other_language, make_normalizer, normalise
from text_classifier.training.models import load_tokenizer

# Zero-width space, byte-order mark, soft hyphen, word joiner, left-to-right mark, an accent alone, variation selector,
# Arabic vowel mark, accents that normalise to a space, several of them, Hangul filler, empty Braille pattern, control
# characters, white space.
NOTHING = ["\u200b", "\ufeff", "\u00ad", "\u2060", "\u200e", "\u0301", "\ufe0f", "\u0650", "\u00b4 \u00a8"]
NOTHING += ["\u200b \u0301\n\ufe0f", "\u3164", "\u2800", "\x00\x07", " \t\n\u3000", ""]
SOMETHING = ["a", "7", "。", "好", "❤️", "🎁", "?", "é", "и\u0306", "\ud800", "ｆ", "ـ", "नि"]


@pytest.mark.parametrize("text", SOMETHING)
def test_what_can_be_read_is_not_empty_and_the_adapters_tokenizer_reads_it(loaded, text):
    assert not is_empty(text) and not is_empty(f"\u200b{text}\u0301")
    assert encode([text], loaded.tokenizer)["input_ids"][0]


@pytest.fixture(scope="module")
def trained_on_them(tmp_path_factory, tiny_gpt2):
    """The folder of a run whose tokenizer undoes letter tricks, and which had empty messages among its data."""
    folder = tmp_path_factory.mktemp("normalizing")
    nothing = pd.DataFrame({"Label": ["ham", "spam"] * 2, "Text": ["\u200b", "\u0301", "\ufe0f", "\u00b4"]})
    pd.concat([make_messages(), nothing]).to_csv(folder / "messages.csv", index=False)
    flags = ["--normalize_text", "true", "--num_train_epochs", "1"]
    assert run_here(folder, arguments(tiny_gpt2, folder / "messages.csv", *flags)) == 0
    return folder


@pytest.fixture(scope="module")
def loaded(trained_on_them):
    return Classifier.load(trained_on_them / "lora_model")


def test_training_leaves_empty_messages_out_and_counts_them(train, trained_on_them, caplog):
    assert train(f"--data_file {trained_on_them}/messages.csv --normalize_text true --prepare_only") == 0
    assert "4 rows without text or label are left out" in caplog.text
    files = (trained_on_them / "dataset").glob("*.csv")
    written = pd.concat(pd.read_csv(file, keep_default_na=False) for file in files)
    assert len(written) == 180 and not written["Text"].map(is_empty).any()


def test_what_nobody_can_read_is_empty_and_gets_no_answer(loaded):
    assert loaded.answer(NOTHING) == [None] * len(NOTHING) and all(map(is_empty, NOTHING))


def test_an_empty_row_of_a_file_stays_without_a_label(trained_on_them, tmp_path):
    source, target = tmp_path / "between.csv", tmp_path / "scored.csv"
    rows = ["call 900 prize", *NOTHING, "see you at lunch"]
    pd.DataFrame({"id": range(len(rows)), "Text": rows}).to_csv(source, index=False)
    argv = [str(source), "--output", str(target), "--adapter_dir", str(trained_on_them / "lora_model")]
    assert score(argv) == 0
    labels = pd.read_csv(target, keep_default_na=False)["predicted_label"].tolist()
    assert labels[1:-1] == [""] * len(NOTHING) and "" not in (labels[0], labels[-1])
    pd.DataFrame({"Text": ["\u200b"]}).to_csv(source, index=False)
    assert score(argv) == 0, "also where it is the only one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["between.csv", "scored.csv"]


BLANKS = st.text(st.sampled_from("\u200b\u0301\ufe0f\u00ad \u00b4aé好"), max_size=8)
ANY_TEXT = st.text(st.characters(), max_size=60) | BLANKS


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ANY_TEXT, min_size=1, max_size=6))
def test_no_answer_depends_on_what_else_is_in_the_batch(loaded, texts):
    for text, answer in zip(texts, loaded.answer(texts), strict=True):
        (alone,) = loaded.answer([text])
        assert (answer is None) == (alone is None) == is_empty(text)
        if answer:
            assert answer.probability == pytest.approx(alone.probability, abs=1e-5)


@settings(max_examples=300, deadline=None)
@given(ANY_TEXT)
def test_what_is_not_empty_has_tokens_in_front_of_every_tokenizer(text):
    assert is_empty(text) or normalise(text).strip()


# ---------------------------------------------------------------------------- letter tricks


TRICKS = {
    "F R E E entry": "FREE entry",
    "c-l-a-i-m it, C.A.S.H": "claim it, CASH",
    "Ｗｉｎ a ⓒⓐⓡ, 𝐟𝐫𝐞𝐞": "Win a car, free",
    "Yоur Аррle ID": "Your Apple ID",
    "lo\u200ban fr\u00adee": "loan free",
    "Còngràtulätions": "Congratulations",
    "pay &lt;#&gt; &amp; go": "pay <#> & go",
    "Y0u w0n a fr33 pr1ze, cl41m": "You won a free prize, claim",
    "C4SH PR1ZE": "CASH PRIZE",
    "贷.款.秒.批": "贷款秒批",
    "加 薇 信 领红包": "加薇信领红包",
    "ＱＱ：１２３４５": "QQ:12345",
}


NO_TRICKS = [
    *("r u ok? I c u", "ok 👍 call 0 9 0 6 1", "plan a b or c", "see you at 5.30", "你好", "在吗 晚上 有空"),
    *("gr8 l8r b4 2nite, at 10am 150ppm", "W45WQ"),
]


@pytest.mark.parametrize("written, meant", [*TRICKS.items(), *zip(NO_TRICKS, NO_TRICKS, strict=True)])
def test_letter_tricks_are_undone_and_what_is_no_trick_stays(written, meant):
    assert make_normalizer().normalize_str(written) == meant


@pytest.mark.parametrize("architecture", ["gpt2", "bert"])
def test_a_saved_tokenizer_reads_like_the_one_trained_with(architecture, tiny_gpt2, tmp_path):
    folder = tmp_path / "base"
    if architecture == "bert":
        save_wordpiece_tokenizer(folder)
    else:
        # The folder names GPT-2's own tokenizer class, as `gpt2` on the Hub does.
        AutoTokenizer.from_pretrained(tiny_gpt2).backend_tokenizer.model.save(str(tmp_path))
        GPT2TokenizerFast(vocab=f"{tmp_path}/vocab.json", merges=f"{tmp_path}/merges.txt").save_pretrained(folder)
        # Older folders have only vocab.json and merges.txt.
        (folder / "tokenizer.json").unlink()
        for name in ("vocab.json", "merges.txt"):
            (tmp_path / name).rename(folder / name)
    (folder / "config.json").write_text(json.dumps({"model_type": architecture}))
    (folder / "model.safetensors").touch()
    base = resolve_base_model(str(folder))
    trained_with = load_tokenizer(base, max_length=20, normalize_text=True)
    trained_with.save_pretrained(tmp_path / "saved")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "saved")
    plain = load_tokenizer(base, max_length=20)
    for written, meant in TRICKS.items():
        assert dict(encode([written], loaded)) == dict(encode([meant], plain))
    for text in ("hi", "", "<|endoftext|>"):
        (ids,) = encode([text], loaded)["input_ids"]
        assert ids[0] == {"gpt2": loaded.eos_token_id, "bert": loaded.cls_token_id}[architecture]
        assert ids.count(ids[0]) == 1, "one token in front, and a typed one is ordinary text"
    (cut,) = encode(["word " * 50], loaded, loaded.model_max_length)["input_ids"]
    assert len(cut) == 20 and loaded.decode(cut[1]).strip()


# ---------------------------------------------------------------------------- language


def is_other(text: str, learned=("en", "zh")) -> bool:
    return is_other_language(text, normalise(text), learned)


def test_short_messages_in_ten_languages_are_found():
    messages = pd.read_csv(REPOSITORY / "tests/other_languages.tsv", sep="\t")
    found = messages["Text"].map(is_other).groupby(messages["Language"]).mean()
    assert len(messages) == 300 and len(found) == 10
    assert found.min() >= 0.9 and found.mean() >= 0.95


@pytest.mark.parametrize("name", ["modern_messages", "chinese_messages"])
def test_english_and_chinese_messages_are_left_alone(name):
    texts = pd.read_csv(REPOSITORY / f"tests/{name}.tsv", sep="\t", quoting=3)["Text"].tolist()
    assert np.mean(list(map(is_other, texts))) <= 0.01


@pytest.mark.parametrize(
    "text",
    [
        *("", "ok", "12:30", "👍"),
        "Eh wat time u reach ah, I wait at void deck lah",
        "Dun lidat leh, makan first then go can or not",
        "Yоur Аррle ID hаs bееn lосkеd",  # with Cyrillic letters
        "你係咪攞錯我把遮呀？",  # Cantonese
        "加微❤ abc888 领红包",
    ],
)
def test_what_is_short_or_disguised_or_a_form_of_them_is_left_alone(text):
    assert not is_other(text)


def test_chinese_is_another_language_to_an_adapter_that_learned_english():
    assert is_other("晚上七点老地方见", ["en"])
    assert not is_other("Wann kommst du heute nach Hause?", []), "nobody knows"
