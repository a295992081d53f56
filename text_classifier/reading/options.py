"""What a caller may say about a file of messages: how it is read, and how much of it."""

from dataclasses import dataclass, field


@dataclass
class ReadOptions:
    """Your own file: how it is read. What is not set is found."""

    text_column: list[str] | None = field(
        default=None, metadata={"help": "Column with the message, or several, such as subject and body."}
    )
    label_column: str | None = field(default=None, metadata={"help": "Column with its right label."})
    positive_label: list[str] | None = field(
        default=None, metadata={"help": "Label to detect (class 1), or several; a known name such as spam if not set."}
    )
    encoding: str | None = field(default=None, metadata={"help": "Of a text file, such as gb18030."})
    no_header: bool = field(default=False, metadata={"help": "The first row is a message."})
    sheet: str | None = field(default=None, metadata={"help": "Of a workbook (.xlsx)."})

    def __post_init__(self):
        # A recipe may name one without writing a list.
        for name in ("text_column", "positive_label"):
            if isinstance(value := getattr(self, name), str):
                setattr(self, name, [value])


@dataclass(frozen=True)
class Limits:
    """What is read at most. By default it is what Excel takes, so that a workbook that states more is no trap."""

    rows: int | None = None
    columns: int = 16_384
    unpacked_bytes: int | None = None
    """Of a workbook, which is a zip archive."""
