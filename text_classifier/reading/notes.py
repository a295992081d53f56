"""What is said of a file that people give us: why it cannot be used, or how it was read."""

# The texts of errors begin with `file_`, those that only inform with `note_`. The chat adds them in Chinese.
ENGLISH = {
    "file_missing": "Cannot read this file: {reason}.",
    "file_type": "This kind of file cannot be read. These can: {formats}",
    "file_damaged": "This file is not a {ending} archive, or it is damaged.",
    "file_many_inside": "This archive holds {count} files. Unpack it, and choose one of them.",
    "file_not_text": "This file is not text and cannot be read. Save it as .csv, .xlsx or .jsonl.",
    "file_encoding_unknown": "There is no encoding {encoding!r}. Try utf-8, utf-16, gb18030 or cp1252.",
    "file_not_table": "This table cannot be read: look for quotation marks or a giant cell near line {line}.",
    "file_uneven": (
        "Line {line} has {cells} cells, but the table has {columns} columns. Put messages with the character that "
        "separates columns in quotation marks."
    ),
    "file_not_json": "Line {line} is not a JSON object such as {{“text”: “…”}}.",
    "file_too_many_columns": "Too many columns: {limit} at most.",
    "file_not_workbook": "This file is not an Excel workbook (.xlsx), or it is damaged.",
    "file_unpacks_too_large": "This workbook unpacks to more than can be read.",
    "file_no_sheet": "There is no sheet {sheet!r}, only {sheets}.",
    "file_no_text_column": "There is no column {column!r}, only {columns}.",
    "file_no_label_column": "There is no column {column!r}, only {columns}.",
    "file_which_text_column": "Which column has the messages: {columns}?",
    "file_which_label_column": "Which column has the labels: {columns}?",
    "file_no_labels": "There is no column of labels beside the messages.",
    "file_several_sheets": "Which sheet has the messages: {sheets}?",
    "file_empty": "There are no messages in this file.",
    "file_too_many_rows": "Too many rows: {limit} at most. Please split the file.",
    "file_above": (
        "Line 1 has one cell, but the lines below have {cells}. Remove lines above the table, or name every column."
    ),
    "note_encoding": "Its encoding is {encoding}.",
    "note_guessed": "Its encoding is not stated; {encoding} was guessed.",
    "note_repaired": "Damaged characters, the first one in line {line}, are shown as �: {count}.",
    "note_delimiter": "Its columns are separated by {delimiter}.",
    "note_quoted": "Quotation marks around its cells are not part of the text.",
    "note_unquoted": "Its quotation marks are part of the text.",
    "note_lines": "Each of its lines was read as one message.",
    "note_leading_labels": "the first word of each line was read as its label.",
    "note_header": "Its first row, {name}, was taken for the name of the column.",
    "note_no_header": "Its first row has a message and no names, so the columns are called {columns}.",
    "note_joined": "Messages with a {delimiter} that were not in quotation marks were put together again: {count}.",
    "note_text_column": "The messages are in the column {column}.",
    "note_label_column": "The labels are in the column {column}.",
    "note_sheet": "The sheet {sheet} was read; not read: {others}.",
}

# What a user of the command line can do about it.
OPTIONS = {
    "note_header": "If it is a message, say so with --no_header.",
    "note_guessed": "If that is wrong, name the right one with --encoding.",
    "file_no_text_column": "Name the right one with --text_column.",
    "file_no_label_column": "Name the right one with --label_column.",
    "file_which_text_column": "Name it with --text_column.",
    "file_which_label_column": "Name it with --label_column.",
    "file_several_sheets": "Name it with --sheet.",
    "file_no_sheet": "Name one with --sheet.",
    "file_encoding_unknown": "Name one with --encoding.",
}


class Note:
    """How a file was read, where that is not plain. `key` names the text, `values` fill its blanks."""

    def __init__(self, key: str, **values):
        self.key, self.values = key, values

    def __str__(self) -> str:
        return " ".join(filter(None, (ENGLISH[self.key].format(**self.values), OPTIONS.get(self.key))))


class TableError(ValueError):
    """A file cannot be used. `key` names the text of the reason, `values` fill its blanks; the message is English."""

    def __init__(self, key: str, **values):
        super().__init__(str(Note(key, **values)))
        self.key, self.values = key, values
