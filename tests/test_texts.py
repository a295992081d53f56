"""The chat has every text in both languages."""

import runpy
import string
from pathlib import Path

import pytest

from chat import texts
from chat.texts import LANGUAGES, STARTERS, TEXTS, closest_language


def blanks(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_both_languages_have_every_text_with_the_same_blanks():
    assert TEXTS.keys() == LANGUAGES.keys()
    assert TEXTS["zh"].keys() == TEXTS["en"].keys()
    for key, chinese in TEXTS["zh"].items():
        assert blanks(chinese) == blanks(TEXTS["en"][key]), key
    for starters in STARTERS.values():
        assert starters["titles"].keys() == LANGUAGES.keys() and "en" in starters["texts"]
        assert all(len(four) == 4 for part in starters.values() for four in part.values())


@pytest.mark.parametrize(
    ("code", "language"), [("zh-CN", "zh"), ("zh", "zh"), ("ZH-tw", "zh"), ("en-GB", "en"), ("fr", "en"), (None, "en")]
)
def test_language_follows_the_browser(code, language):
    assert closest_language(code) == language


def test_a_language_that_is_added_may_lack_texts(monkeypatch):
    sentences = (
        Path(texts.__file__).with_name("texts.yaml").read_text("utf-8") + "\nde:\n  name: Deutsch\n  stop: Halt\n"
    )
    monkeypatch.setattr(Path, "read_text", lambda *_: sentences)
    german = runpy.run_path(texts.__file__)
    assert german["LANGUAGES"]["de"] == "Deutsch" and german["closest_language"]("de-AT") == "de"
    assert (german["say"]("stop", "de"), german["say"]("stopped", "de")) == ("Halt", TEXTS["en"]["stopped"])
    assert german["starters"]("spam", "de", [])[0][0] == STARTERS["spam"]["titles"]["en"][0]
