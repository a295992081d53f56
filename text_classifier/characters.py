"""Read the characters of a message as a person does: undo letter tricks, and tell when there is nothing to read.

Spammers write `F R E E`, `frее` with Cyrillic letters, `ｆｒｅｅ` or `贷.款`. `make_normalizer` undoes such tricks.
The normalizer is saved as a part of the tokenizer, so serving reads the same text as training.
"""

import functools
import re
import unicodedata

import opencc
from tokenizers import Regex, normalizers

# Cyrillic and Greek letters that look like Latin ones.
_LOOK_ALIKE = str.maketrans(
    "АВЕЅІЈКМНОРСТХУаеѕіјорсухԁһԛԝ" + "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧονρ", "ABESIJKMHOPCTXYaesijopcyxdhqw" + "ABEZHIKMNOPTYXovp"
)
# HTML entities, which programs write into messages.
_ENTITIES = {"&lt;": "<", "&gt;": ">", "&quot;": '"', "&amp;": "&"}
_INVISIBLE = Regex("[\u00ad\u200b-\u200f\u2060\ufeff]")
# Each letter, and the digit that people write instead of it.
LEET = {"a": "4", "e": "3", "i": "1", "o": "0", "s": "5", "t": "7"}

# The range of Chinese characters, for regular expressions.
HAN = "\u3400-\u9fff"
_HAN = re.compile(f"[{HAN}]")

# Whatever else a message has, one of these is left after normalising.
_SURELY_READ = re.compile("[0-9A-Za-z]")
# Letters and symbols that are drawn as blanks: fillers of Hangul, and Braille's empty pattern.
_DRAWN_BLANK = "\u115f\u1160\u2800\u3164\uffa0"


def replace_half_surrogates(text: str) -> str:
    """Replace each half of a surrogate pair by a question mark.

    A browser can send such a half. It is not a character, so tokenizers, files and databases refuse it.
    """
    return text.encode("utf-8", "replace").decode("utf-8")


def is_empty(text: str) -> bool:
    """Return whether a message has nothing to read. All of training, scoring, chat and API ask this one function."""
    return not _SURELY_READ.search(text) and nothing_visible(normalise(text))


def nothing_visible(normalised: str) -> bool:
    """Return whether a message has nothing to read when it has been normalised.

    White space, control characters, zero-width characters, and accents or variation selectors without a letter are
    nothing.
    """
    return not any(map(_is_visible, normalised))


def _is_visible(character: str) -> bool:
    if character.isspace() or not character.isprintable() or character in _DRAWN_BLANK:
        return False
    # A mark needs a letter to stand on.
    return not unicodedata.category(character).startswith("M")


def normalise(text: str) -> str:
    """Return a message as `make_normalizer` reads it."""
    return _shared_normalizer().normalize_str(replace_half_surrogates(text))


def has_chinese(text: str) -> bool:
    """Return whether a message has a Chinese character."""
    return bool(_HAN.search(text))


def simplify(text: str) -> str:
    """Return a message in simplified Chinese characters and the words of the mainland (OpenCC)."""
    return _to_simplified().convert(text) if has_chinese(text) else text


@functools.cache
def _to_simplified() -> opencc.OpenCC:
    return opencc.OpenCC("tw2sp")


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
    return normalizers.Sequence([*steps, *_visible_words()])


def _visible_words() -> list[normalizers.Normalizer]:
    """Return the steps that delete invisible characters, join letters set apart, and turn digits into letters."""
    letter, gap = r"[^\W\d_]", r"[ .*_-]"
    # A gap inside a row of four single letters: after the third, the second or the first.
    apart = "|".join(
        f"(?<=\\b{gap.join([letter] * before)}){gap}(?={gap.join([letter] * after)}\\b)"
        for before, after in ((3, 1), (2, 2), (1, 3))
    )
    han, mark = f"[{HAN}]", r"[ .*_|/~·-]"
    # The same for three Chinese characters.
    apart_han = f"(?<={han}{mark}{han}){mark}(?={han})|(?<={han}){mark}(?={han}{mark}{han})"
    steps = [normalizers.Replace(_INVISIBLE, ""), normalizers.Replace(Regex(f"{apart}|{apart_han}"), "")]
    digits = "".join(LEET.values())
    for plain, digit in LEET.items():
        # One or two digits inside a word, or two equal digits at its end. A word in capitals may be a postcode (W45WQ,
        # WC1N 3XX), so there it must be one digit between a letter and two more letters.
        inside = rf"(?<=[A-Za-z]|[A-Za-z][{digits}]){digit}(?=[{digits}]?[a-z])"
        at_end = rf"(?<=[a-z]{{2}}){digit}(?={digit}\b)|(?<=[a-z]{{2}}{digit}){digit}\b"
        steps.append(normalizers.Replace(Regex(f"{inside}|{at_end}"), plain))
        steps.append(normalizers.Replace(Regex(rf"(?<=[A-Z]){digit}(?=[A-Z]{{2}})"), plain.upper()))
    return steps


# Making it takes a while, and `normalise` is called for every message.
_shared_normalizer = functools.cache(make_normalizer)
