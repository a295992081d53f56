"""What is said of a file that people give us, from notes.yaml: why it cannot be used, or how it was read."""

from pathlib import Path

import yaml

NOTES: dict[str, dict[str, str]] = yaml.safe_load(Path(__file__).with_name("notes.yaml").read_text("utf-8"))


class Note:
    """How a file was read, where that is not plain. `key` names the text, `values` fill its blanks."""

    def __init__(self, key: str, **values):
        self.key, self.values = key, values

    def __str__(self) -> str:
        """Return the text in English, with what a user of the command line can do."""
        text = NOTES[self.key]
        return f"{text['en'].format(**self.values)} {text.get('command_line', '')}".rstrip()


class TableError(Note, ValueError):
    """Why a file cannot be used."""
