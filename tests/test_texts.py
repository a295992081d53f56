"""The chat has every text in both languages."""

import string

import pytest

from chat.texts import LANGUAGES, STARTERS, TEXTS, closest_language


def blanks(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_both_languages_have_every_text_with_the_same_blanks():
    assert TEXTS.keys() == LANGUAGES.keys()
    assert TEXTS["zh"].keys() == TEXTS["en"].keys()
    for key, chinese in TEXTS["zh"].items():
        assert blanks(chinese) == blanks(TEXTS["en"][key]), key
    for starters in STARTERS.values():
        assert len(starters) == 4 and all(title.keys() == LANGUAGES.keys() for title, _ in starters)


@pytest.mark.parametrize(
    ("code", "language"), [("zh-CN", "zh"), ("zh", "zh"), ("ZH-tw", "zh"), ("en-GB", "en"), ("fr", "en"), (None, "en")]
)
def test_language_follows_the_browser(code, language):
    assert closest_language(code) == language
