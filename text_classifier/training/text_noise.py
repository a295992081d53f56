"""Undo letter tricks before a model reads a message, and imitate tricks and typing errors in training.

Spammers write `F R E E`, `frее` with Cyrillic letters or `ｆｒｅｅ`; people mistype and write in capitals.
`make_normalizer` undoes the tricks. The normalizer is saved as a part of the tokenizer, so serving reads the same text
as training. `add_noise` makes noisy variants of a training message.
"""

import random
import re
import string

from tokenizers import Regex, normalizers

# Cyrillic and Greek letters that look like Latin ones.
_LOOK_ALIKE = str.maketrans(
    "АВЕЅІЈКМНОРСТХУаеѕіјорсухԁһԛԝ" + "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧονρ", "ABESIJKMHOPCTXYaesijopcyxdhqw" + "ABEZHIKMNOPTYXovp"
)
# HTML entities, which programs write into messages, and invisible characters.
_REPLACED = {
    "&lt;": "<",
    "&gt;": ">",
    "&quot;": '"',
    "&amp;": "&",
    Regex("[\u00ad\u200b-\u200f\u2060\ufeff]"): "",
}
# Each letter, and the digit that people write instead of it.
_LEET = {"a": "4", "e": "3", "i": "1", "o": "0", "s": "5", "t": "7"}
_TO_LEET = str.maketrans(_LEET | {letter.upper(): digit for letter, digit in _LEET.items()})

# Masks such as `<#>`, which the collection's authors put in place of numbers in private messages.
_MASK = re.compile(r"(?:<|&lt;)(#|DECIMAL|TIME|URL|EMAIL)(?:>|&gt;)")
_HAS_DIGIT = re.compile(r"\S*\d\S*|\S*(?:www\.|http)\S*")


def make_normalizer() -> normalizers.Normalizer:
    """Return the normalizer of a tokenizer for English messages.

    It replaces accents, compatibility forms (Unicode NFKC: full width, circled, mathematical letters), look-alike
    letters and HTML entities by plain characters, and deletes invisible characters. It joins four or more single
    letters that are set apart (`F R E E`). It turns digits inside words into letters (`fr33 pr1ze`).
    """
    letter, gap = r"[^\W\d_]", r"[ .*_-]"
    # A gap inside a row of four single letters: after the third, the second or the first.
    apart = "|".join(
        f"(?<=\\b{gap.join([letter] * before)}){gap}(?={gap.join([letter] * after)}\\b)"
        for before, after in ((3, 1), (2, 2), (1, 3))
    )
    steps = [normalizers.NFKD(), normalizers.StripAccents(), normalizers.NFKC()]
    steps += [normalizers.Replace(chr(alike), chr(plain)) for alike, plain in _LOOK_ALIKE.items()]
    steps += [normalizers.Replace(written, meant) for written, meant in _REPLACED.items()]
    steps.append(normalizers.Replace(Regex(apart), ""))
    digits = "".join(_LEET.values())
    for plain, digit in _LEET.items():
        # One or two digits inside a word, or two equal digits at its end. A word in capitals may be a postcode (W45WQ,
        # WC1N 3XX), so there it must be one digit between a letter and two more letters.
        inside = rf"(?<=[A-Za-z]|[A-Za-z][{digits}]){digit}(?=[{digits}]?[a-z])"
        at_end = rf"(?<=[a-z]{{2}}){digit}(?={digit}\b)|(?<=[a-z]{{2}}{digit}){digit}\b"
        steps.append(normalizers.Replace(Regex(f"{inside}|{at_end}"), plain))
        steps.append(normalizers.Replace(Regex(rf"(?<=[A-Z]){digit}(?=[A-Z]{{2}})"), plain.upper()))
    return normalizers.Sequence(steps)


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


def _mistype(word: str, draw: random.Random) -> str:
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
    text = _MASK.sub(lambda mask: _detail(draw, mask[1]), text)
    without = _HAS_DIGIT.sub("", text)
    change = draw.random()
    if change < 0.15 and without.strip():
        text = without
    elif change > 0.7:
        words = text.split(" ")
        for _ in range(draw.randint(1, 2)):
            words.insert(draw.randint(0, len(words)), _detail(draw))
        text = " ".join(words)
    case = draw.random()
    text = text.upper() if case < 0.1 else text.lower() if case < 0.25 else text
    if draw.random() < 0.2:
        text = " ".join(_mistype(word, draw) if draw.random() < 0.2 else word for word in text.split(" "))
    elif draw.random() < 0.1:
        text = "".join(letter.translate(_TO_LEET) if draw.random() < 0.5 else letter for letter in text)
    return text
