"""Open files that people give us: unpack compressed ones, and find the encoding of their text."""

import bz2
import codecs
import contextlib
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TextIO

from charset_normalizer import from_bytes

from text_classifier.reading.notes import Note, TableError

# Encodings of files without a byte order mark, from Windows in many countries, by how often this project's users meet
# them. A short text fits several of them.
ENCODINGS = {
    "gb18030": "简体中文",
    "cp1252": "Western Europe",
    "big5": "繁體中文",
    "cp932": "日本語",
    "cp949": "한국어",
    "cp1251": "Русский",
    "cp1250": "Polski, Čeština, Magyar",
    "cp1254": "Türkçe",
    "cp1253": "Ελληνικά",
    "cp1255": "עברית",
    "cp1256": "العربية",
    "cp874": "ไทย",
}

# What charset-normalizer cannot tell from cp1252 in short texts: letters that are rare in Western Europe, or no letters
# at all, if they are read as cp1252.
_UNLIKE_CP1252 = {
    "cp1254": re.compile(rb"[\xd0\xde\xf0\xfe]").search,  # Turkish, or else Icelandic
    "cp1250": re.compile(rb"[a-z\xc0-\xff][\xb3\xb9\xbf][a-z\xc0-\xff]").search,  # Polish, or else ³¹¿ within words
}
# Bytes of lines that an encoding is guessed from.
_GUESSED_FROM = 1 << 16

# What a name may end in. A compressed file has the ending of its format before that of the compression.
SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".json", ".xlsx")
_OTHER_FORMATS = {".xls", ".ods", ".doc", ".docx", ".pdf", ".parquet", ".zst", ".7z", ".rar", ".tar", ".tgz"}


@dataclass
class ReadOptions:
    """Your own file: how it is read. What is not set is guessed."""

    text_column: list[str] | None = field(
        default=None, metadata={"help": "Column with the message, or several, such as subject and body."}
    )
    label_column: str | None = field(default=None, metadata={"help": "Column with the right label."})
    positive_label: list[str] | None = field(
        default=None, metadata={"help": "Label to detect (class 1), or several; a known name such as spam if not set."}
    )
    encoding: str | None = field(default=None, metadata={"help": "Encoding of a text file, such as gb18030."})
    no_header: bool = field(default=False, metadata={"help": "The first row is a message."})
    sheet: str | None = field(default=None, metadata={"help": "Sheet of a workbook (.xlsx)."})

    def __post_init__(self):
        # A recipe may name one without writing a list.
        for name in ("text_column", "positive_label"):
            if isinstance(value := getattr(self, name), str):
                setattr(self, name, [value])


@dataclass(frozen=True)
class Limits:
    """What is read at most. By default Excel's own limit, because a damaged workbook may state any size."""

    rows: int | None = None
    columns: int = 16_384
    unpacked_bytes: int | None = None  # of a workbook, which is a zip archive


def _open_zip(file: BinaryIO) -> BinaryIO:
    """Open the only file in a zip archive."""
    archive = zipfile.ZipFile(file)
    # macOS adds files of its own to archives.
    names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
    if len(names) != 1:
        raise TableError("file_many_inside", count=len(names))
    try:
        return archive.open(names[0])
    # It has a password, or was packed by an unknown method.
    except RuntimeError as error:
        raise zipfile.BadZipFile from error


_UNPACK: dict[str, Callable] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zip": _open_zip}


@dataclass
class Source:
    """A file that is being read: its bytes, unpacked if its name says that they are packed, and what is known of it."""

    path: Path
    name: str  # without the ending of the compression, such as messages.csv
    options: ReadOptions
    limits: Limits
    packed: str = ""  # the ending of the compression, such as .gz
    encoding: str = ""  # of its text, when it is found; what is not in the encoding is read as U+FFFD
    notes: list[Note] = field(default_factory=list)  # how it is read, where that is not plain

    def __post_init__(self):
        packed = Path(self.name).suffix.lower()
        if packed in _OTHER_FORMATS:
            raise TableError("file_type", formats=f"{' '.join(SUFFIXES)}, also as {' '.join(_UNPACK)}")
        if packed in _UNPACK:
            self.name, self.packed = Path(self.name).stem, packed
        if packed == ".zip":
            with self.open() as member:
                self.name = member.name

    @property
    def suffix(self) -> str:
        """The ending that tells the format, in lower case."""
        return Path(self.name).suffix.lower()

    def note(self, key: str, **values) -> None:
        """Add a note on how the file is read."""
        self.notes.append(Note(key, **values))

    @contextlib.contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open the unpacked bytes."""
        try:
            with self.path.open("rb") as file, _UNPACK.get(self.packed, contextlib.nullcontext)(file) as content:
                yield content
        except (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
            # Errors of the system have a `strerror`, those of archives have none.
            if reason := getattr(error, "strerror", None):
                raise TableError("file_missing", reason=reason) from error
            raise TableError("file_damaged", ending=self.packed) from error

    @contextlib.contextmanager
    def open_text(self) -> Iterator[TextIO]:
        """Open the file as text with the line ends that it has."""
        with self.open() as file, io.TextIOWrapper(file, self.encoding, errors="replace", newline="") as text:
            yield text


def find_encoding(source: Source) -> str:
    """Return the encoding of a text file, and note it if it is not plain.

    A byte order mark tells it. Text that is nearly all valid UTF-8 is UTF-8 with damaged characters: a
    file that was cut, or put together from several. Otherwise charset-normalizer guesses.
    """
    if named := source.options.encoding:
        try:
            b"a".decode(named, "replace")
            encoding = codecs.lookup(named).name
        # Python also has codecs that are no encodings of text.
        except (LookupError, ValueError) as error:
            raise TableError("file_encoding_unknown", encoding=named) from error
        return "utf-8-sig" if encoding == "utf-8" else encoding
    with source.open() as file:
        beginning = file.read(1 << 16)
    if beginning.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    # The mark of UTF-32 begins with that of UTF-16.
    for encoding in ("utf-32", "utf-16"):
        if beginning.startswith(("\ufeff".encode(f"{encoding}-le"), "\ufeff".encode(f"{encoding}-be"))):
            source.note("note_encoding", encoding=encoding)
            return encoding
    # In UTF-16, each comma, line end and Latin letter has a zero byte; other files have a few stray ones.
    if b"\x00" in beginning:
        if encoding := _utf_16_without_mark(beginning):
            source.note("note_guessed", encoding=encoding)
            return encoding
        if len(re.findall(rb"[\x00-\x08\x0e-\x1f\x7f]", beginning)) > 0.05 * len(beginning):
            raise TableError("file_not_text")
    return _utf_8_or_guess(source)


def _utf_16_without_mark(beginning: bytes) -> str | None:
    chaos = {}
    for encoding in ("utf-16-le", "utf-16-be"):
        # The end of the bytes may cut a character.
        whole = beginning.decode(encoding, "ignore").encode(encoding)
        if match := from_bytes(whole, cp_isolation=[encoding]).best():
            chaos[encoding] = match.chaos
    return min(chaos, key=chaos.get, default=None)


def _utf_8_or_guess(source: Source) -> str:
    # Bytes of the file and of its valid characters beyond ASCII; number of damaged characters, and line of the first.
    size = valid = damaged = first_line = 0
    unusual = bytearray()
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    with source.open() as file:
        for number, line in enumerate(file, 1):
            size += len(line)
            if line.isascii():
                continue
            if len(unusual) < _GUESSED_FROM:
                unusual += line
            text = decoder.decode(line)
            # An earlier program may have written U+FFFD: then it is valid.
            lost = text.count("\ufffd") - line.count("\ufffd".encode())
            valid += len(text.encode()) - len(text.encode("ascii", "ignore")) - lost * len("\ufffd".encode())
            damaged += lost
            first_line = first_line or (lost and number)
    # A character that the file's end cut waits in the decoder, and tells nothing of the encoding.
    is_cut = bool(decoder.getstate()[0])
    if not damaged and not is_cut:
        return "utf-8"
    # Text in another encoding has some bytes that happen to be valid UTF-8, but never five in six, unless it is tiny.
    if damaged > 0.2 * valid:
        if encoding := _guess(bytes(unusual)):
            source.note("note_guessed", encoding=f"{encoding} ({ENCODINGS[encoding]})")
            return encoding
        if damaged > 0.05 * size:
            raise TableError("file_not_text")
    source.note("note_repaired", count=f"{damaged + is_cut:,}", line=f"{first_line or number:,}")
    return "utf-8"


def _guess(sample: bytes) -> str | None:
    """Return the most likely encoding of lines that are not ASCII, or None if it is none that people use."""
    # Accented letters stand alone among plain ones, letters of other scripts stand together.
    runs = [len(run) for run in re.findall(rb"[\x80-\xff]+", sample)]
    latin = 2 * runs.count(1) >= sum(runs)
    matches = list(from_bytes(sample, cp_isolation=["cp1252", *_UNLIKE_CP1252] if latin else list(ENCODINGS)))
    if not matches:
        return None
    # What reads about as smoothly as the best is as likely. Then letters that are frequent in a language decide, and
    # at last how often people meet the encoding.
    likely = [match for match in matches if match.chaos <= matches[0].chaos + 0.03]
    coherence = {name: match.coherence for match in reversed(likely) for name in match.could_be_from_charset}
    most = max(coherence.values())
    best = next(name for name in ENCODINGS if coherence.get(name, -1) >= most - 0.1)
    return next((other for other, letters in _UNLIKE_CP1252.items() if best == "cp1252" and letters(sample)), best)
