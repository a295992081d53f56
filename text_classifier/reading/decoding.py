"""Open files that people give us: unpack compressed ones, and find the encoding of their text."""

import bz2
import codecs
import contextlib
import gzip
import io
import itertools
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO

from charset_normalizer import from_bytes

from text_classifier.reading.notes import Note, TableError

# Encodings of files without a mark, from Windows in many countries, by how often this project's users meet them. A
# short text fits several of them.
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

# What a name may end in. A compressed file has the ending of its format before that of the compression.
SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".json", ".xlsx")
_OTHER_FORMATS = {".xls", ".ods", ".doc", ".docx", ".pdf", ".parquet", ".zst", ".7z", ".rar", ".tar", ".tgz"}

# Letters of two languages that are rare in Western Europe, or no letters at all, if they are read as cp1252.
_UNLIKE_CP1252 = {
    "cp1254": re.compile(rb"[\xd0\xde\xf0\xfe]").search,  # Turkish, or else Icelandic
    "cp1250": re.compile(rb"[a-z\xc0-\xff][\xb3\xb9\xbf][a-z\xc0-\xff]").search,  # Polish, or else ³¹¿ within words
}

_HIGH_BYTES = bytes(range(0x80, 0x100))
_STRAYS = re.compile("[\udc80-\udcff]+")
_BLOCK = 1 << 20
_UNPACK: dict[str, Callable] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_DAMAGED = (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError, RuntimeError)
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    # The mark of UTF-32 begins with that of UTF-16.
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


@dataclass(frozen=True)
class Source:
    """The bytes of a file, unpacked if it is compressed."""

    path: Path
    name: str
    """The name without the ending of the compression, such as messages.csv."""
    packed: str = ""
    """The ending of the compression, such as .gz; empty if there is none."""

    @property
    def suffix(self) -> str:
        """The ending that tells the format, in lower case."""
        return Path(self.name).suffix.lower()

    @contextlib.contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open the unpacked bytes.

        Raises:
            TableError: the file is missing, or it cannot be unpacked.
        """
        try:
            with self.path.open("rb") as file:
                if not self.packed:
                    yield file
                    return
                try:
                    if self.packed == ".zip":
                        with zipfile.ZipFile(file) as archive, archive.open(_only_member(archive)) as member:
                            yield member
                    else:
                        with _UNPACK[self.packed](file) as unpacked:
                            yield unpacked
                except _DAMAGED as error:
                    raise TableError("file_damaged", ending=self.packed) from error
        except OSError as error:
            raise TableError("file_missing", reason=error.strerror or "it is damaged") from error

    @contextlib.contextmanager
    def open_text(self, encoding: str) -> Iterator[TextIO]:
        """Open the file as text with the line ends that it has; what is not in the encoding becomes U+FFFD."""
        with self.open() as file, io.TextIOWrapper(file, encoding=encoding, errors="replace", newline="") as text:
            yield text

    def blocks(self) -> Iterator[bytes]:
        """Yield the unpacked bytes, piece by piece."""
        with self.open() as file:
            while block := file.read(_BLOCK):
                yield block


def open_source(path: Path, name: str) -> Source:
    """Find out whether a file is compressed, by its name.

    Raises:
        TableError: it is an archive of several files, or none; or it is damaged; or its format is none of ours.
    """
    packed = Path(name).suffix.lower()
    if packed in _OTHER_FORMATS:
        raise TableError("file_type", formats=f"{' '.join(SUFFIXES)}, also as {' '.join((*_UNPACK, '.zip'))}")
    if packed == ".zip":
        try:
            with zipfile.ZipFile(path) as archive:
                return Source(path, _only_member(archive), packed)
        except FileNotFoundError as error:
            raise TableError("file_missing", reason=error.strerror) from error
        except _DAMAGED as error:
            raise TableError("file_damaged", ending=packed) from error
    return Source(path, Path(name).stem, packed) if packed in _UNPACK else Source(path, name)


def _only_member(archive: zipfile.ZipFile) -> str:
    # macOS adds files of its own to archives.
    names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
    if len(names) != 1:
        raise TableError("file_many_inside", count=len(names))
    return names[0]


def find_encoding(source: Source, named: str | None = None) -> tuple[str, list[Note]]:
    """Return the encoding of a text file, and what is to be said of it.

    A mark at the file's beginning tells it. Text that is nearly all valid UTF-8 is UTF-8 with damaged characters: a
    file that was cut, or put together from several. Otherwise charset-normalizer guesses.

    Args:
        named: the encoding, if it is known.

    Raises:
        TableError: the file is no text, or there is no encoding of that name.
    """
    if named:
        return _check_encoding(named), []
    beginning = next(source.blocks(), b"")[: 1 << 16]
    for mark, encoding in _MARKS.items():
        if beginning.startswith(mark):
            return encoding, [] if encoding == "utf-8-sig" else [Note("note_encoding", {"encoding": encoding})]
    if b"\x00" in beginning and (found := _utf_16_without_mark(beginning)):
        return found
    return _utf_8_or_guess(source)


def _check_encoding(name: str) -> str:
    try:
        b"a".decode(name, "replace")
        encoding = codecs.lookup(name).name
    # Python also has codecs that are no encodings of text.
    except (LookupError, UnicodeError, ValueError) as error:
        raise TableError("file_encoding_unknown", encoding=name) from error
    return "utf-8-sig" if encoding == "utf-8" else encoding


def _utf_16_without_mark(beginning: bytes) -> tuple[str, list[Note]] | None:
    """Return which UTF-16 it is; commas, line ends and Latin letters have a zero byte, always on the same side.

    None means that it is another encoding, with a few stray zero bytes.

    Raises:
        TableError: it is no text.
    """
    even, odd = beginning[::2].count(0), beginning[1::2].count(0)
    encoding = "utf-16-le" if odd > even else "utf-16-be"
    controls = re.findall(r"[\x00-\x08\x0e-\x1f\ufffd]", beginning.decode(encoding, "replace"))
    if (
        min(even, odd) <= 0.05 * max(even, odd)
        and max(even, odd) > 0.02 * len(beginning)
        and len(controls) < 0.01 * len(beginning)
    ):
        return encoding, [Note("note_guessed", {"encoding": encoding})]
    if len(re.findall(rb"[\x00-\x08\x0e-\x1f\x7f]", beginning)) > 0.05 * len(beginning):
        raise TableError("file_not_text")
    return None


def _utf_8_or_guess(source: Source) -> tuple[str, list[Note]]:
    # Each byte that is not part of valid UTF-8 becomes a half surrogate, which no valid text holds.
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    high = strays = damaged = characters = line = first_line = 0
    unusual = []
    for block in itertools.chain(source.blocks(), [b""]):
        text = decoder.decode(block, final=not block)
        characters += len(text)
        if not text.isascii():
            high += len(block) - len(block.translate(None, _HIGH_BYTES))
            for run in _STRAYS.finditer(text):
                first_line = first_line or line + text[: run.start()].count("\n") + 1
                # The last block is empty: a character that the file's end cut is left for it, and tells nothing.
                strays += len(run[0]) if block else 0
                damaged += len(run[0].encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
            if sum(map(len, unusual)) < _BLOCK // 16:
                unusual += [row for row in block.split(b"\n") if not row.isascii()][:500]
        line += text.count("\n")
    if not damaged:
        return "utf-8", []
    # Text in another encoding has some bytes that happen to be valid UTF-8, but never five in six, unless it is tiny.
    nearly_valid = strays <= 0.2 * (high - strays)
    if not nearly_valid and (encoding := _guess(b"\n".join(unusual))):
        return encoding, [Note("note_guessed", {"encoding": f"{encoding} ({ENCODINGS[encoding]})"})]
    if not nearly_valid and damaged > 0.05 * characters:
        raise TableError("file_not_text")
    return "utf-8", [Note("note_repaired", {"count": f"{damaged:,}", "line": f"{first_line:,}"})]


def _guess(sample: bytes) -> str | None:
    """Return the most likely encoding of lines that are not ASCII, or None if it is none that people use."""
    # Accented letters stand alone among plain ones, letters of other scripts stand together.
    runs = [len(run) for run in re.findall(rb"[\x80-\xff]+", sample)]
    latin = 2 * runs.count(1) >= sum(runs)
    matches = list(from_bytes(sample, cp_isolation=["cp1252", *_UNLIKE_CP1252] if latin else list(ENCODINGS)))
    if not matches:
        return None
    order = list(ENCODINGS)
    # What reads about as smoothly as the best is as likely. Then letters that are frequent in a language decide, and
    # at last how often people meet the encoding.
    likely = [match for match in matches if match.chaos <= matches[0].chaos + 0.03]
    coherence = {
        encoding: match.coherence
        for match in reversed(likely)
        for encoding in {match.encoding, *match.could_be_from_charset} & set(order)
    }
    most = max(coherence.values())
    best = min((encoding for encoding in coherence if coherence[encoding] > most - 0.1), key=order.index)
    return next((other for other, letters in _UNLIKE_CP1252.items() if best == "cp1252" and letters(sample)), best)
