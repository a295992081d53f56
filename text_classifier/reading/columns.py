"""Find out what the columns of people's tables hold: names, messages or labels."""

import re
from collections.abc import Collection, Sequence

import pandas as pd

from text_classifier.reading.labels import is_name_of_class
from text_classifier.reading.notes import Note, TableError
from text_classifier.text import has_chinese

TEXT_COLUMN_NAMES = {
    *("text", "texts", "message", "messages", "msg", "sms", "body", "content", "review", "comment", "sentence"),
    *("文本", "短信", "消息", "信息", "内容", "正文", "评论", "短信内容", "消息内容", "訊息", "內容", "簡訊"),
    *("nachricht", "texte", "texto", "mensaje", "mensagem", "testo", "messaggio", "wiadomość", "mesaj", "текст"),
    *("сообщение", "本文", "メッセージ", "메시지", "내용"),
}

LABEL_COLUMN_NAMES = {
    *("label", "labels", "class", "category", "target", "type", "kind", "tag", "is_spam", "spam", "sentiment"),
    *("标签", "类别", "分类", "类型", "是否垃圾", "是否垃圾短信", "標籤", "類別", "分類", "類型"),
}


def has_known_name(first: Sequence[str], names: Collection[str]) -> bool:
    """Return whether a first row has one of these names, without regard to case."""
    return bool({cell.strip().casefold() for cell in first} & {name.casefold() for name in names})


def may_be_header(first: Sequence[str], rows_below: Sequence[Sequence[str]]) -> bool:
    """Return whether the first row looks like names of columns; in a file without a header it is a message."""
    # The name of a column does not come back below; a label does, or other labels stand below it.
    below = {cell for row in rows_below for cell in row if cell}
    for cell, *column in zip(first, *rows_below, strict=False):
        if is_name_of_class(cell) and all(map(is_name_of_class, column)):
            return False
    return not any(
        cell in below or len(cell) > 80 or len(cell.split()) > 10 or sum(map(has_chinese, cell)) > 20 for cell in first
    )


def name_columns(header: Sequence[str]) -> list[str]:
    """Return the names of columns, each different: those without a name are numbered."""
    columns: list[str] = []
    for number, name in enumerate(header, 1):
        name = name.strip() or f"column {number}"
        columns.append(name if name not in columns else f"{name} ({number})")
    return columns


def without_blank_end(cells: Sequence[str]) -> list[str]:
    """Return the cells of a row without blank ones at its end."""
    end = len(cells)
    while end and not cells[end - 1]:
        end -= 1
    return list(cells[:end])


def _may_be_labels(column: pd.Series) -> bool:
    """Return whether all cells are labels by their names, or of few kinds that come back, unlike dates and numbers."""
    kinds = column.str.strip().str.casefold().nunique()
    return 2 <= kinds <= min(10, len(column) // 2) or all(map(is_name_of_class, column))


def choose_text_columns(sample: pd.DataFrame, named: Sequence[str] | None, notes: list[Note]) -> list[str]:
    """Return the columns with the messages, by the first rows of a table.

    They are those that the user has named; by default `Text`, or else the only one it can be, which is noted.
    """
    shown = ", ".join(map(repr, sample.columns))
    if missing := [column for column in named or () if column not in sample.columns]:
        raise TableError("file_no_text_column", column=missing[0], columns=shown)
    if named or "Text" in sample.columns:
        return list(named or ["Text"])
    # Of two columns with the same name, the second has a number; see `name_columns`.
    plain = {column: re.sub(r" \(\d+\)$", "", column.strip().casefold()) for column in sample.columns}
    likely = [column for column, name in plain.items() if name in TEXT_COLUMN_NAMES]
    lengths = sample.map(len).mean().sort_values(ascending=False)
    if len(likely) != 1:
        # Messages are several times longer than labels, dates and names. Short ones are what is left beside labels.
        longest = len(lengths) == 1 or lengths.iloc[0] >= max(20, 3 * lengths.iloc[1])
        likely = [*lengths.index[:1]] if longest else [name for name in plain if not _may_be_labels(sample[name])]
    if len(likely) != 1:
        raise TableError("file_which_text_column", columns=shown, choices=list(lengths.index))
    notes.append(Note("note_text_column", column=repr(likely[0])))
    return likely


def choose_label_column(sample: pd.DataFrame, named: str | None, text_columns: Sequence[str], notes: list[Note]) -> str:
    """Return the column with the labels; see `choose_text_columns`."""
    if named is not None and named not in sample.columns:
        raise TableError("file_no_label_column", column=named, columns=", ".join(map(repr, sample.columns)))
    if named in text_columns:
        raise TableError("file_same_column", column=repr(named))
    if named is not None or "Label" in sample.columns:
        return named or "Label"
    others = [column for column in sample.columns if column not in text_columns]
    likely = [column for column in others if column.strip().casefold() in LABEL_COLUMN_NAMES]
    if len(likely) != 1:
        likely = [column for column in others if _may_be_labels(sample[column])]
    if not likely and len(others) == 1 and sample[others[0]].duplicated().any():
        likely = others
    if len(likely) != 1:
        shown = ", ".join(map(repr, others))
        raise TableError("file_which_label_column", columns=shown) if shown else TableError("file_no_labels")
    notes.append(Note("note_label_column", column=repr(likely[0])))
    return likely[0]


def texts_of(table: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    """Return the messages of a table; the parts of several columns, such as subject and body, stand in lines."""
    if len(columns) == 1:
        return table[columns[0]]
    return table[list(columns)].apply(lambda row: "\n".join(filter(None, row)), axis=1).astype(str)
