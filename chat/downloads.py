"""Write a file of messages with its labels for a spreadsheet, without formulas that somebody hid in a message."""

import re

import pandas as pd

from text_classifier.characters import replace_half_surrogates

# A spreadsheet takes a cell that begins like this for a formula (OWASP, "CSV Injection"), unless it is a number.
_FORMULA = re.compile(r"[=+\-@\t\r\n＝＋－＠]")
_NUMBER = re.compile(r"[+-]?[\d\s.,]*\d%?")


def neutralise_formula(cell: str) -> str:
    """Put an apostrophe before a cell that a spreadsheet would run as a formula; numbers stay as they are."""
    return f"'{cell}" if _FORMULA.match(cell) and not _NUMBER.fullmatch(cell) else cell


def to_csv(table: pd.DataFrame) -> bytes:
    """Return a table of strings as a CSV with neutralised formulas; its first bytes tell spreadsheets the encoding."""
    safe = table.map(neutralise_formula).rename(columns=neutralise_formula)
    return replace_half_surrogates(safe.to_csv(index=False, lineterminator="\r\n")).encode("utf-8-sig")
