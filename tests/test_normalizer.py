"""Letter tricks are undone both in training and in serving, and every message begins with a token of its own."""

import json

import pytest
from conftest import save_wordpiece_tokenizer
from transformers import AutoTokenizer, GPT2TokenizerFast

from text_classifier.characters import make_normalizer
from text_classifier.runtime import encode
from text_classifier.sources.weights import resolve_base_model
from text_classifier.training.models import load_tokenizer

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


@pytest.mark.parametrize("written, meant", TRICKS.items())
def test_letter_tricks_are_undone(written, meant):
    assert make_normalizer().normalize_str(written) == meant


@pytest.mark.parametrize(
    "text",
    [
        "r u ok? I c u",
        "ok 👍 call 0 9 0 6 1",
        "plan a b or c",
        "see you at 5.30",
        "你好",
        "在吗 晚上 有空",
        "gr8 l8r b4 2nite, at 10am 150ppm",
        "W45WQ",
    ],
)
def test_what_is_no_trick_stays(text):
    assert make_normalizer().normalize_str(text) == text


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
