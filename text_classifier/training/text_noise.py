"""Make noisy variants of training messages: other numbers and links, capitals, typing errors, digits for letters.

Chinese messages also get traditional characters, other punctuation, and characters set apart.
"""

import functools
import random
import re
import string

import opencc

from text_classifier.characters import HAN, LEET, has_chinese, is_empty

_TO_LEET = str.maketrans(LEET | {letter.upper(): digit for letter, digit in LEET.items()})

# Masks such as `<#>`, which the collection's authors put in place of numbers in private messages.
_MASK = re.compile(r"(?:<|&lt;)(#|DECIMAL|TIME|URL|EMAIL)(?:>|&gt;)")
_FULL_WIDTH = str.maketrans(",!?:;()", "，！？：；（）")
_HALF_WIDTH = str.maketrans("，！？：；（）。", ",!?:;().")

_HAS_DIGIT = re.compile(r"\S*\d\S*|\S*(?:www\.|http)\S*")


def _detail(draw: random.Random, kind: str | None = None) -> str:
    """Return a random number, time, price, date, link or address, such as messages of all kinds contain.

    Args:
        kind: which of these; None draws one.
    """
    word = "".join(draw.choices(string.ascii_lowercase, k=draw.randint(3, 9)))
    number = "".join(draw.choices(string.digits, k=draw.randint(1, 6)))
    host = f"{draw.choice(['https://', 'www.', 'https://www.'])}{word}.{draw.choice(['com', 'co.uk', 'org'])}"
    made = {
        "#": number,
        "DECIMAL": f"{draw.randint(0, 200)}.{draw.randint(0, 99):02}",
        "TIME": f"{draw.randint(1, 23)}:{draw.randint(0, 59):02}",
        "URL": f"{host}/{number}",
        "EMAIL": f"{word}@{word[::-1]}.com",
        "hour": f"{draw.randint(1, 12)}{draw.choice(['am', 'pm'])}",
        "price": f"{draw.choice('£$€')}{draw.randint(1, 900)}",
        "phone": "0" + "".join(draw.choices(string.digits, k=10)),
        "date": f"{draw.randint(1, 31)} {draw.choice(['Jan', 'March', 'May', 'July', 'Sept', 'Nov'])}",
    }
    return made[kind or draw.choice(list(made))]


def mistype(word: str, draw: random.Random) -> str:
    """Return the word with two letters swapped, or with one letter dropped or doubled; a short word stays as it is."""
    if len(word) < 3:
        return word
    at = draw.randrange(len(word) - 1)
    return (
        word[:at] + draw.choice([word[at + 1] + word[at], word[at + 1], word[at] * 2 + word[at + 1]]) + word[at + 2 :]
    )


def add_noise(text: str, draw: random.Random) -> str:
    """Return a noisy variant of a training message, so that the model learns from its meaning and not its surface.

    Masks are replaced by numbers, times, links or addresses. Then chance decides about each further change: words with
    digits are dropped or added, the case changes, typing errors are made, or digits replace letters. The variant is
    never empty.
    """
    if has_chinese(text):
        return _add_chinese_noise(text, draw)
    text = _MASK.sub(lambda mask: _detail(draw, mask[1]), text)
    without = _HAS_DIGIT.sub("", text)
    change = draw.random()
    if change < 0.15 and not is_empty(without):
        text = without
    elif change > 0.7:
        words = text.split(" ")
        for _ in range(draw.randint(1, 2)):
            words.insert(draw.randint(0, len(words)), _detail(draw))
        text = " ".join(words)
    case = draw.random()
    text = text.upper() if case < 0.1 else text.lower() if case < 0.25 else text
    if draw.random() < 0.2:
        text = " ".join(mistype(word, draw) if draw.random() < 0.2 else word for word in text.split(" "))
    elif draw.random() < 0.1:
        text = "".join(letter.translate(_TO_LEET) if draw.random() < 0.5 else letter for letter in text)
    return text


@functools.cache
def _to_traditional(variant: str) -> opencc.OpenCC:
    return opencc.OpenCC(variant)


def _add_chinese_noise(text: str, draw: random.Random) -> str:
    """Return a variant of a Chinese message: traditional, other punctuation, characters set apart, lost or swapped."""
    if draw.random() < 0.3:
        # As people write on the mainland's forums, in Taiwan and in Hong Kong.
        text = _to_traditional(draw.choice(["s2t", "s2twp", "s2hk"])).convert(text)
    punctuation = draw.random()
    if punctuation < 0.5:
        text = text.translate(_FULL_WIDTH if punctuation < 0.25 else _HALF_WIDTH)
    elif punctuation < 0.65:
        # Many people write a space instead of a mark, and no mark at the end.
        text = re.sub("[，,。！!；;]+", " ", text).strip()
    change = draw.random()
    if change < 0.15:
        text = re.sub(r"\d", lambda _: draw.choice(string.digits), text)
    elif change < 0.3:
        text = mistype(text, draw)
    elif change < 0.4:
        apart = draw.choice(" .-")
        # A word of two characters, because the normalizer joins three and more.
        words = re.findall(f"[{HAN}]{{2}}", text)
        if words:
            word = draw.choice(words)
            text = text.replace(word, apart.join(word), 1)
    return text
