"""Read messages as a person does: undo letter tricks, recognise empty messages and other languages.

Spammers write `F R E E`, `frее` with Cyrillic letters, `ｆｒｅｅ` or `贷.款`. `make_normalizer` undoes such tricks.
The normalizer is saved as a part of the tokenizer, so serving reads the same text as training.
"""

import functools
import re
import unicodedata
from collections.abc import Sequence

import opencc
import py3langid
from tokenizers import Regex, normalizers

# Cyrillic and Greek letters that look like Latin ones.
_LOOK_ALIKE = str.maketrans(
    "АВЕЅІЈКМНОРСТХУаеѕіјорсухԁһԛԝ" + "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧονρ", "ABESIJKMHOPCTXYaesijopcyxdhqw" + "ABEZHIKMNOPTYXovp"
)
# HTML entities, which programs write into messages.
_ENTITIES = {"&lt;": "<", "&gt;": ">", "&quot;": '"', "&amp;": "&"}
_INVISIBLE = Regex("[\u00ad\u200b-\u200f\u2060\ufeff]")
# Each letter, and the digit that people write instead of it.
_LEET = {"a": "4", "e": "3", "i": "1", "o": "0", "s": "5", "t": "7"}

# The range of Chinese characters, for regular expressions.
HAN = "\u3400-\u9fff"
_HAN = re.compile(f"[{HAN}]")
_TO_SIMPLIFIED = opencc.OpenCC("tw2sp")

# Whatever else a message has, one of these is left after normalising.
_SURELY_READ = re.compile("[0-9A-Za-z]")
# Letters and symbols that are drawn as blanks: fillers of Hangul, and Braille's empty pattern.
_DRAWN_BLANK = "\u115f\u1160\u2800\u3164\uffa0"


def replace_half_surrogates(text: str) -> str:
    """Replace each half of a surrogate pair by a question mark.

    A browser can send such a half. It is not a character, so tokenizers, files and databases refuse it.
    """
    return text.encode("utf-8", "replace").decode("utf-8")


def is_empty(text: str, normalised: str | None = None) -> bool:
    """Return whether a message has nothing to read. All of training, scoring, chat and API ask this one function.

    White space, control characters, zero-width characters, and accents or variation selectors without a letter are
    nothing.

    Args:
        normalised: the message as `normalise` returns it, if that is known already.
    """
    if _SURELY_READ.search(text):
        return False
    # Unicode's separators, control characters and the like, and marks, which need a letter to stand on.
    return all(
        character in _DRAWN_BLANK or unicodedata.category(character)[0] in "ZCM"
        for character in (normalise(text) if normalised is None else normalised)
    )


def normalise(text: str) -> str:
    """Return a message as `make_normalizer` reads it."""
    return make_normalizer().normalize_str(replace_half_surrogates(text))


def has_chinese(text: str) -> bool:
    """Return whether a message has a Chinese character."""
    return bool(_HAN.search(text))


def simplify(text: str) -> str:
    """Return a message in simplified Chinese characters and the words of the mainland (OpenCC)."""
    return _TO_SIMPLIFIED.convert(text) if has_chinese(text) else text


# ---------------------------------------------------------------------------- letter tricks


@functools.cache
def make_normalizer() -> normalizers.Normalizer:
    """Return the normalizer of a tokenizer for English and Chinese messages.

    It replaces accents, compatibility forms (Unicode NFKC: full width, circled, mathematical letters), look-alike
    letters and HTML entities by plain characters, and deletes invisible characters. It joins four or more single
    letters that are set apart (`F R E E`), and three or more Chinese characters. It turns digits inside words into
    letters (`fr33 pr1ze`).
    """
    steps = [normalizers.NFKD(), normalizers.StripAccents(), normalizers.NFKC()]
    steps += [normalizers.Replace(chr(alike), chr(plain)) for alike, plain in _LOOK_ALIKE.items()]
    steps += [normalizers.Replace(written, meant) for written, meant in _ENTITIES.items()]
    steps.append(normalizers.Replace(_INVISIBLE, ""))
    letter, gap = r"[^\W\d_]", r"[ .*_-]"
    # A gap inside a row of four single letters: after the third, the second or the first.
    apart = "|".join(
        f"(?<=\\b{gap.join([letter] * before)}){gap}(?={gap.join([letter] * after)}\\b)"
        for before, after in ((3, 1), (2, 2), (1, 3))
    )
    han, mark = f"[{HAN}]", r"[ .*_|/~·-]"
    # The same for three Chinese characters.
    apart_han = f"(?<={han}{mark}{han}){mark}(?={han})|(?<={han}){mark}(?={han}{mark}{han})"
    steps.append(normalizers.Replace(Regex(f"{apart}|{apart_han}"), ""))
    digits = "".join(_LEET.values())
    for plain, digit in _LEET.items():
        # One or two digits inside a word, or two equal digits at its end. A word in capitals may be a postcode (W45WQ,
        # WC1N 3XX), so there it must be one digit between a letter and two more letters.
        inside = rf"(?<=[A-Za-z]|[A-Za-z][{digits}]){digit}(?=[{digits}]?[a-z])"
        at_end = rf"(?<=[a-z]{{2}}){digit}(?={digit}\b)|(?<=[a-z]{{2}}{digit}){digit}\b"
        steps.append(normalizers.Replace(Regex(f"{inside}|{at_end}"), plain))
        steps.append(normalizers.Replace(Regex(rf"(?<=[A-Z]){digit}(?=[A-Z]{{2}})"), plain.upper()))
    return normalizers.Sequence(steps)


# ---------------------------------------------------------------------------- language

# The identifier's names for forms of a language. Cantonese and Wu are written like Chinese, and text messages in
# English look like Nigerian Pidgin.
_FORMS = {"en": ("en", "pcm"), "zh": ("zh", "yue", "wuu")}
_CHARACTERS = 1_000  # a text in another language shows it at its beginning

# How much likelier a language must be than those that the adapter learned, as log odds. With this one, 0.5 % of the
# collection's ham counts as another language, most of it rightly, and 98.7 % of 300 short messages in ten other
# languages (`python -m benchmarks.accuracy`).
_MARGIN = 10.0


def is_other_language(text: str, normalised: str, learned: Sequence[str]) -> bool:
    """Return whether a message is in a language that the adapter did not learn, so that its answer can be doubted.

    py3langid (Lui and Baldwin 2012, "langid.py") compares 139 languages.

    Args:
        normalised: the message as `normalise` returns it. Letter tricks, such as Cyrillic letters or accents in English
            words, are no other language.
        learned: ISO 639-1 codes such as `en`. If there are none, as after training on a file of your own, the languages
            are not known, and no message is in another one.
    """
    home = {form for language in learned for form in _FORMS.get(language, (language,))}
    beginnings = (replace_half_surrogates(text[:_CHARACTERS]), normalised[:_CHARACTERS])
    return bool(home) and all(_distance(beginning, home) > _MARGIN for beginning in beginnings)


def _distance(text: str, home: set[str]) -> float:
    """Return the log odds of the likeliest other language against the likeliest in `home`."""
    scores = dict(py3langid.rank(text))
    known = max(scores.pop(language) for language in home)
    del scores["zxx"]  # no language
    return max(scores.values()) - known
