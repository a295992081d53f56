"""What writers do to letters: undone before a model reads them, imitated when it trains.

Spammers write `F R E E`, `frее` with Cyrillic letters or `ｆｒｅｅ`; people mistype and shout. `make_normalizer`
undoes what can be undone and is saved as a part of the tokenizer, so that serving reads what training
read. `add_noise` makes other versions of a training message.
"""

import random
import re
import string

from tokenizers import Regex, normalizers

# Cyrillic and Greek letters that look like Latin ones.
_LOOK_ALIKE = str.maketrans(
    "АВЕЅІЈКМНОРСТХУаеѕіјорсухԁһԛԝ" + "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧονρ", "ABESIJKMHOPCTXYaesijopcyxdhqw" + "ABEZHIKMNOPTYXovp"
)
# Written by programs into messages, or invisible.
_REPLACED = {
    "&lt;": "<",
    "&gt;": ">",
    "&quot;": '"',
    "&amp;": "&",
    Regex("[\u00ad\u200b-\u200f\u2060\ufeff]"): "",
}
# Digits for letters: the letter, and how it is written.
_LEET = {"a": "4", "e": "3", "i": "1", "o": "0", "s": "5", "t": "7"}
_TO_LEET = str.maketrans(_LEET | {letter.upper(): digit for letter, digit in _LEET.items()})

# The collection's authors masked numbers of private messages in this way.
_MASK = re.compile(r"(?:<|&lt;)(#|DECIMAL|TIME|URL|EMAIL)(?:>|&gt;)")
_HAS_DIGIT = re.compile(r"\S*\d\S*|\S*(?:www\.|http)\S*")


def make_normalizer() -> normalizers.Normalizer:
    """Return the normalizer of a tokenizer for English messages.

    Accents, compatibility forms (Unicode NFKC: full width, circled, mathematical letters), look-alike
    letters, invisible characters and HTML entities are made plain, single letters that are set apart,
    four or more, are put together, and digits inside words become letters (`fr33 pr1ze`).
    """
    letter, gap = r"[^\W\d_]", r"[ .*_-]"
    # A gap with a single letter on either side, and two more of them around.
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
        # One or two digits inside a word, also at its end if they are alike. Capitals with a digit may be a
        # postcode, W45WQ or WC1N 3XX: there it is one digit with two letters after it.
        inside = rf"(?<=[A-Za-z]|[A-Za-z][{digits}]){digit}(?=[{digits}]?[a-z])"
        at_end = rf"(?<=[a-z]{{2}}){digit}(?={digit}\b)|(?<=[a-z]{{2}}{digit}){digit}\b"
        steps.append(normalizers.Replace(Regex(f"{inside}|{at_end}"), plain))
        steps.append(normalizers.Replace(Regex(rf"(?<=[A-Z]){digit}(?=[A-Z]{{2}})"), plain.upper()))
    return normalizers.Sequence(steps)


def _detail(draw: random.Random, kind: str | None = None) -> str:
    """Return a number, time, price, date or address as it stands in messages of all kinds."""
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
    """Swap, drop or double a letter."""
    if len(word) < 3:
        return word
    at = draw.randrange(len(word) - 1)
    return (
        word[:at] + draw.choice([word[at + 1] + word[at], word[at + 1], word[at] * 2 + word[at + 1]]) + word[at + 2 :]
    )


def add_noise(text: str, draw: random.Random) -> str:
    """Return another version of a training message, never an empty one; what it says decides, not its surface.

    Masks of numbers get numbers. Then, each by chance: what has digits is left out, or more of it is put
    in; capitals; typing errors; digits for letters.
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
