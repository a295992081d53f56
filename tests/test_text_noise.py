"""Letter tricks are undone both in training and in serving, and noise keeps the meaning of a message."""

import json
import random

import pytest
from conftest import save_wordpiece_tokenizer
from transformers import AutoTokenizer, GPT2TokenizerFast

from text_classifier.characters import make_normalizer
from text_classifier.inference import encode
from text_classifier.sources.weights import resolve_base_model
from text_classifier.training.batches import FreshSampler, TextNoise
from text_classifier.training.models import load_tokenizer
from text_classifier.training.text_noise import add_noise

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


def test_noise_gives_masked_numbers_back_and_says_the_same():
    draw = random.Random(0)
    versions = [add_noise("Ok, I will pay &lt;#&gt; pounds for the ticket tonight", draw) for _ in range(200)]
    assert not any("&lt;" in version for version in versions)
    assert len(set(versions)) > 150
    with_number = [version for version in versions if any(character.isdigit() for character in version)]
    assert 100 < len(with_number) < 200, "sometimes there is one, sometimes not"
    assert sum("ticket" in version.lower() for version in versions) > 120, "most words stay as they are"


@pytest.mark.parametrize("text", ["7", "call 0906", "a", " ", "£1000"])
def test_noise_leaves_something_of_every_message(text):
    draw = random.Random(1)
    assert all(add_noise(text, draw) for _ in range(100))


def test_training_sees_other_versions_every_epoch_and_a_resumed_run_the_same(tiny_gpt2):
    tokenizer = AutoTokenizer.from_pretrained(tiny_gpt2, model_max_length=120)
    texts = [f"see you at {hour} tonight, bring the tickets" for hour in range(50)]
    messages = [
        {"input_ids": ids, "labels": index % 2} for index, ids in enumerate(encode(texts, tokenizer)["input_ids"])
    ]
    sampler = FreshSampler([0, 1] * 25, [9] * 50, draws={0: 25, 1: 25}, group_size=2, seed=1)

    def epoch(number: int, share: float = 0.5) -> list:
        sampler.set_epoch(number)
        noisy = TextNoise(messages, texts, share, tokenizer, sampler, seed=1)
        return [noisy[index]["input_ids"] for index in range(50)]

    changed = sum(one != message["input_ids"] for one, message in zip(epoch(0), messages, strict=True))
    assert 10 < changed < 30
    assert epoch(0) == epoch(0) != epoch(1)
    assert epoch(0, share=0) == [message["input_ids"] for message in messages]
    noisy = TextNoise(messages, texts, 1.0, tokenizer, sampler, seed=1)
    assert [noisy[index]["labels"] for index in range(50)] == [0, 1] * 25
