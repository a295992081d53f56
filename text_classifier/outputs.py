"""Write the result of file scoring in the format that its name says, to a file, a device, a pipe or standard output."""

import bz2
import codecs
import contextlib
import csv
import gzip
import io
import json
import lzma
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from openpyxl import Workbook
from openpyxl.cell import WriteOnlyCell

from text_classifier import files
from text_classifier.files import LINE_END, atomic_path, exclusive

STANDARD = Path("-")
"""What stands for standard output, and in place of a file to read for standard input."""
_PACK = {"": open, ".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_ESCAPED = re.compile(r"[\x00-\x08\x0b-\x1f]|_(?=x[0-9A-Fa-f]{4}_)")
_EXCEL_ROWS, _EXCEL_CHARACTERS = 1_048_576, 32_767


def format_of(target: Path) -> tuple[str, str]:
    """Return what a result's name ends in: its format, such as .csv, and its compression, such as .gz, or "".

    A device, a pipe and standard output may have any name; without an ending they get a CSV.

    Raises:
        ValueError: results are not written in such a format.
    """
    suffixes = [suffix.lower() for suffix in target.suffixes]
    packed = suffixes.pop() if suffixes and suffixes[-1] in _PACK else ""
    name = suffixes[-1] if suffixes else ""
    if name in (".csv", ".tsv", ".jsonl") or (name == ".xlsx" and not packed):
        return name, packed
    if is_stream(target):
        return ".csv", ""
    raise ValueError(f"--output {target}: the name must end in .csv, .tsv or .jsonl, perhaps with .gz, or in .xlsx.")


def is_stream(target: Path) -> bool:
    """Return whether a result goes to standard output, a device or a pipe: it is written once and never replaced."""
    return target == STANDARD or files.is_stream(target)


def check_output(target: Path, source: Path) -> None:
    """Check that a result can be written, before any work.

    Raises:
        ValueError: it cannot; the message says why.
    """
    if target.is_dir():
        raise ValueError(f"--output {target} is a folder; name the file to write.")
    if not target.parent.is_dir():
        raise ValueError(f"--output {target}: there is no folder {target.parent}.")
    if target != STANDARD and target.resolve() == source.resolve():
        raise ValueError("--output is the file itself.")
    format_of(target)


def check_rows(target: Path, rows: int) -> None:
    """Check that the format of a result holds so many rows.

    Raises:
        ValueError: it does not.
    """
    if format_of(target)[0] == ".xlsx" and rows >= _EXCEL_ROWS:
        raise ValueError(f"--output {target}: Excel takes {_EXCEL_ROWS - 1:,} rows, the file has {rows:,}. Use .csv.")


@contextlib.contextmanager
def locked_part(target: Path | None) -> Iterator[Path]:
    """Yield the path of the CSV that gets the finished rows, and let no other process write it meanwhile.

    For a file it stands beside it, so that the next run can go on from there. For a device, a pipe, standard output and
    no output at all it is a temporary file.

    Raises:
        BlockingIOError: another process is writing it.
    """
    if target is None or is_stream(target):
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder, "scored.csv.part")
        return
    target = target.resolve()
    with exclusive(target):
        yield target.with_name(f"{target.name}.part")


def write_result(part: Path, target: Path) -> None:
    """Write the rows of a finished CSV in the format that the result's name says.

    Args:
        part: a CSV in UTF-8; it is left where it is.
    """
    name, packed = format_of(target)
    if target == STANDARD:
        _write(part, sys.stdout.buffer, name)
        return
    with atomic_path(target) as scratch, _PACK[packed](scratch, "wb") as output:
        if name == ".csv" and not _is_ascii(part):
            # Excel takes a CSV without this mark for one in an older encoding.
            output.write(codecs.BOM_UTF8)
        _write(part, output, name)


def _is_ascii(path: Path) -> bool:
    with path.open("rb") as file:
        return all(block.isascii() for block in iter(lambda: file.read(1 << 20), b""))


def _write(part: Path, output: BinaryIO, name: str) -> None:
    if name == ".csv":
        with part.open("rb") as content:
            shutil.copyfileobj(content, output)
        return
    with part.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        if name == ".xlsx":
            workbook = Workbook(write_only=True)
            sheet = workbook.create_sheet("messages")
            for row in rows:
                sheet.append([_text_cell(sheet, cell) for cell in row])
            workbook.save(output)
            return
        text = io.TextIOWrapper(output, "utf-8", newline="")
        if name == ".jsonl":
            header = next(rows)
            text.writelines(json.dumps(dict(zip(header, row, strict=True)), ensure_ascii=False) + "\n" for row in rows)
        else:
            csv.writer(text, delimiter="\t", lineterminator=LINE_END).writerows(rows)
    # Flushes, and leaves `output` open.
    text.detach()


def _text_cell(sheet: object, text: str) -> WriteOnlyCell:
    # Excel's own escapes, for characters that XML cannot hold or would change, and for a text that looks like one.
    escaped = _ESCAPED.sub(lambda found: f"_x{ord(found[0]):04X}_", text)
    cell = WriteOnlyCell(sheet, escaped[:_EXCEL_CHARACTERS])
    # A text is no formula, whatever it begins with.
    cell.data_type = "s"
    return cell
