"""Files of people are read as they were meant, or refused with the reason: by training, file scoring and the chat."""

import bz2
import csv
import gzip
import io
import json
import lzma
import zipfile

import pandas as pd
import pytest
from reading import opened, read, said

from chat.settings import FILE_LIMITS
from chat.texts import TEXTS
from text_classifier.reading.columns import choose_text_columns
from text_classifier.reading.messages import ReadOptions, read_messages
from text_classifier.reading.notes import TableError

ROWS = [["1", "Free entry, call £100 now"], ["2", 'He said "hi"\nand left'], ["3", ""], ["4", "晚饭吃了吗？"]]


def as_csv(delimiter=",") -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows([["id", "text"], *ROWS])
    return text.getvalue()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";"])
def test_csv_keeps_order_columns_and_text(tmp_path, encoding, delimiter):
    table = read(tmp_path, "m.CSV", as_csv(delimiter).encode(encoding))
    assert table.columns.tolist() == ["id", "text"] and table.to_numpy().tolist() == ROWS


def test_tsv_and_txt_are_one_message_a_line(tmp_path):
    table = read(tmp_path, "m.tsv", b'id\ttext\n1\tsay "hi\n2\tit\'s 5" long\n')
    assert table["text"].tolist() == ['say "hi', "it's 5\" long"]
    table = read(tmp_path, "m.txt", b"first, with comma\n\n  second\r\n")
    assert table["text"].tolist() == ["first, with comma", "  second"]


def test_a_file_without_header_loses_no_message(tmp_path):
    first = "Go until jurong point, crazy.. Available only in bugis n great world la e buffet"
    table = read(tmp_path, "sms.tsv", f"ham\t{first}\nspam\tFree entry in 2 a wkly comp\n".encode())
    assert table.iloc[:, 1].tolist() == [first, "Free entry in 2 a wkly comp"]
    assert choose_text_columns(table, None, []) == ["column 2"]
    assert len(read(tmp_path, "short.csv", b"ham,Ok lar\nspam,win a prize\nham,see you\n")) == 3
    assert len(read(tmp_path, "zh.csv", "恭喜您获得本公司周年庆典一等奖，请速点击链接领取\n晚上吃饭吗\n".encode())) == 2


def test_rare_line_ends_within_messages_end_no_row(tmp_path):
    texts = ["one\u2028two", "page\x0cbreak", "next\x85line", "three"]
    for name, text in (("m.csv", "{},1"), ("m.tsv", "{}\t1"), ("m.txt", "{}"), ("m.jsonl", '{{"text": "{}"}}')):
        lines = [text.format(message) for message in texts if name != "m.jsonl" or "\x0c" not in message]
        header = {"m.csv": ["text,id"], "m.tsv": ["text\tid"]}.get(name, [])
        read_texts = read(tmp_path, name, "\n".join([*header, *lines]).encode())["text"].tolist()
        assert read_texts == [message for message in texts if name != "m.jsonl" or "\x0c" not in message]


def test_a_line_that_names_the_delimiter_is_no_row(tmp_path):
    assert read(tmp_path, "m.csv", b"sep=;\r\nid;text\r\n1;a,b\r\n").to_numpy().tolist() == [["1", "a,b"]]


def test_short_rows_and_repeated_names_are_kept(tmp_path):
    table = read(tmp_path, "m.csv", b"text,text,,date\na,b\nc,d,e,f\n")
    assert table.columns.tolist() == ["text", "text (2)", "column 3", "date"]
    assert table.to_numpy().tolist() == [["a", "b", "", ""], ["c", "d", "e", "f"]]


def zipped(size: int) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", b"0" * size)
    return content.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("m.csv", b"", "file_empty"),
        ("m.csv", b"text\n\n", "file_empty"),
        ("m.txt", b" \n\n", "file_empty"),
        ("m.csv", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(range(256)), "file_not_text"),
        ("m.csv", zipped(1000), "file_not_text"),
        ("m.csv", b'id,text\n1,hello\n2,"' + b"x" * 200_000 + b"\n3\n", "file_not_table"),
        ("m.csv", b'id,text\n1,hello\n2,"Great deal\n3,more\n4,"and more"\n', "file_not_table"),
        ("m.csv", b"text\n" + b"," * 500_000 + b"x\n", "file_too_many_columns"),
        ("m.tsv", b"a\t" * 101 + b"b\n1\n", "file_too_many_columns"),
        ("m.csv", "id\ttext".encode("utf-16-le"), "file_empty"),
        ("m.csv", bytes(range(256)) * 4, "file_not_text"),
        ("m.csv.zip", b"text\nhello\n", "file_damaged"),
        ("m.csv.xz", b"text\nhello\n", "file_damaged"),
        ("m.csv.gz", b"\x1f\x8b\x08\x00\x00", "file_damaged"),
        ("m.csv.zst", b"text\nhello\n", "file_type"),
        ("m.xls", b"\xd0\xcf\x11\xe0", "file_type"),
        ("m.jsonl", b'{"text": "hello"}\n["text", "bye"]\n', "file_not_json"),
        ("m.jsonl", b'{"text": "hello"}\n{"text": \n', "file_not_json"),
        ("m.json", b"[" * 100_000, "file_not_json"),
        ("m.json", b"[1, 2]", "file_not_json"),
        ("m.jsonl", b"\n", "file_empty"),
        # A text with tabs or bars that are not in quotation marks could belong to either column.
        ("m.tsv", b"id\ttext\n1\thello\n2\tgood\tbye\n", "file_uneven"),
        ("m.csv", b"text\nham\thello\nham\tbye\n", "file_above"),
        ("m.xlsx", b"text\nhello\n", "file_not_workbook"),
        ("m.xlsx", zipped(1000), "file_not_workbook"),
        ("m.xlsx", zipped(60 * 2**20), "file_unpacks_too_large"),
        ("m.txt", b"hello\n" * (FILE_LIMITS.rows + 1), "file_too_many_rows"),
        ("m.csv", b"text\n" + b"hello\n" * (FILE_LIMITS.rows + 1), "file_too_many_rows"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(tmp_path, name, content, reason):
    with pytest.raises(TableError) as refused:
        read(tmp_path, name, content)
    assert refused.value.key == reason
    assert all(TEXTS[language][reason].format(**refused.value.values) for language in TEXTS)
    assert str(refused.value).startswith(TEXTS["en"][reason].format(**refused.value.values))


# ---------------------------------------------------------------------------- the same rows in every form

MESSAGES = [
    ["ham", "well, yes, if you like"],
    ["spam", "prize of £900 waiting, text CLAIM to 60999"],
    ["ham", 'she said "hi", then left; ok'],
    ["ham", "晚上一起吃饭吗？"],
    ["spam", "line\nbreak"],
]


def as_separated(delimiter: str, header: bool = True, rows=MESSAGES) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows([["kind", "message"]] * header + rows)
    return text.getvalue()


def packed(content: bytes, name: str) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as target:
        target.writestr(name, content)
        target.writestr("__MACOSX/._m.csv", b"\x00")
    return archive.getvalue()


CONTENT = as_separated(",").encode()
LINES = "\n".join(json.dumps(dict(zip(("kind", "message"), row, strict=True))) for row in MESSAGES).encode()


@pytest.mark.parametrize(
    ("name", "content", "notes"),
    [
        ("m.csv", CONTENT, []),
        ("m.csv", as_separated(";").encode(), ["note_delimiter"]),
        ("m.csv", as_separated("|").encode(), ["note_delimiter"]),
        ("m.csv", as_separated("\t").encode(), ["note_delimiter", "note_quoted"]),
        ("m.tsv", as_separated("\t").encode(), ["note_quoted"]),
        ("m.dat", as_separated("\t").encode(), ["note_delimiter", "note_quoted"]),
        ("M.CSV", as_separated(",").encode("utf-16"), ["note_encoding"]),
        ("m.csv", as_separated(",").encode("utf-8-sig"), []),
        ("m.csv", as_separated(",").encode("utf-32"), ["note_encoding"]),
        ("m.csv", as_separated(",").encode("gb18030"), ["note_guessed"]),
        ("m.csv", CONTENT.replace(b"\nspam", b",,,\nspam").replace(b"message\n", b"message,,,\n"), []),
        ("m.csv", b"sep=;\n" + as_separated(";").encode(), ["note_delimiter"]),
        ("m.jsonl", LINES, []),
        ("m.json", b"[" + LINES.replace(b"\n", b", ") + b"]", []),
        ("m.csv.gz", gzip.compress(CONTENT), []),
        ("m.csv.xz", lzma.compress(CONTENT), []),
        ("m.csv.bz2", bz2.compress(CONTENT), []),
        ("m.zip", packed(CONTENT, "m.csv"), []),
        ("m.csv", as_separated(",", header=False).encode(), ["note_no_header"]),
        ("m.csv", as_separated(";", header=False).encode(), ["note_delimiter", "note_no_header"]),
    ],
)
def test_messages_are_the_same_in_every_form(tmp_path, name, content, notes):
    table = opened(tmp_path, name, content)
    assert table.table().to_numpy().tolist() == MESSAGES and said(table) == notes
    assert table.columns == (["column 1", "column 2"] if "note_no_header" in notes else ["kind", "message"])
    chunks = list(table.chunks(2))
    assert [len(chunk) for chunk in chunks] == [2, 2, 1] and table.rows == 5
    assert pd.concat(chunks, ignore_index=True).equals(table.table())


def test_the_collections_own_form_is_read_whatever_its_ending(tmp_path):
    lines = 'ham\tGo until "jurong\nspam\tFree entry, call 0800\nham\t"Yes"\n'
    for name in ("SMSSpamCollection", "m.txt", "m.tsv", "m.csv"):
        table = opened(tmp_path, name, lines.encode())
        assert table.table()["column 2"].tolist() == ['Go until "jurong', "Free entry, call 0800", '"Yes"']
        assert "note_no_header" in said(table)


def test_header_is_what_the_user_says(tmp_path):
    assert read(tmp_path, "m.csv", b"text,kind\nhello,ham\n", no_header=True).to_numpy().tolist() == [
        ["text", "kind"],
        ["hello", "ham"],
    ]
    # A label comes back below, but the user asks for a column of this name.
    content = b"ham,words\nham,hello\nspam,WIN\n"
    assert opened(tmp_path, "m.csv", content).rows == 3
    assert opened(tmp_path, "m.csv", content, text_column=["words"]).rows == 2


# ---------------------------------------------------------------------------- surplus cells


def test_unquoted_commas_are_put_together_where_the_message_comes_last(tmp_path):
    table = opened(tmp_path, "m.csv", b"label,message\nspam,Hello, your prize, claim\nham,Sorry, late\nham,fine\n")
    assert table.table()["message"].tolist() == ["Hello, your prize, claim", "Sorry, late", "fine"]
    assert said(table) == ["note_joined"] and table.notes[0].values["count"] == "2"
    assert read_messages(tmp_path / "upload", ReadOptions(text_column=["message"]), "m.csv").rows == 3
    with pytest.raises(TableError, match="Line 2 has 4 cells, but the table has 2 columns"):
        read_messages(tmp_path / "upload", ReadOptions(text_column=["label"]), "m.csv")
    assert read(tmp_path, "m.csv", b"text\nHello, you, there\nHi, Tom\nfine\n")["text"].tolist() == [
        "Hello, you, there",
        "Hi, Tom",
        "fine",
    ]


def test_lines_with_commas_and_no_name_above_are_messages(tmp_path):
    table = opened(tmp_path, "m.csv", b"see you at seven, ok?\ndid you eat yet\nwell, yes, if you like\n")
    assert table.table()["text"].tolist() == ["see you at seven, ok?", "did you eat yet", "well, yes, if you like"]
    assert said(table) == ["note_lines"]
    assert opened(tmp_path, "m.csv", b"just one, without a name\n").rows == 1
    with pytest.raises(TableError, match="Line 1 has 3 cells"):
        opened(tmp_path, "m.csv", b"see you at seven, ok?,ham\ndid you eat yet,ham\nfine by me,ham\n")


def test_a_first_line_that_may_be_a_message_is_told(tmp_path):
    table = opened(tmp_path, "m.csv", b"hello there\nhow are you\n")
    assert said(table) == ["note_header"] and "--no_header" in str(table.notes[0])
    with pytest.raises(TableError, match="Remove lines above the table"):
        opened(tmp_path, "m.csv", b"Report of May,,\n,,\nlabel,text,\nham,hello,\nspam,WIN,\n")


def test_objects_in_json_are_flat_columns(tmp_path):
    rows = b'{"sms": {"body": "hello"}, "label": 1}\n{"sms": {"body": "bye"}}\n'
    assert read(tmp_path, "m.jsonl", rows).to_dict("list") == {"sms.body": ["hello", "bye"], "label": ["1", ""]}
    assert read(tmp_path, "m.json", b'{"count": 1, "data": [{"text": "hi"}]}')["text"].tolist() == ["hi"]


def test_stray_zero_bytes_do_not_make_a_file_no_text(tmp_path):
    assert (
        read(tmp_path, "m.csv", b"text,id\n" + b"hello there,1\n" * 9 + b"hel\x00lo,2\n")["text"].iloc[-1]
        == "hel\x00lo"
    )


def test_unquoted_commas_without_header_are_put_together_behind_labels(tmp_path):
    table = opened(tmp_path, "m.csv", b"ham,well, yes, if\nspam,WIN, now\nham,ok\nham,a, b, c, d\n")
    assert table.table()["column 2"].tolist() == ["well, yes, if", "WIN, now", "ok", "a, b, c, d"]


# ---------------------------------------------------------------------------- separators


@pytest.mark.parametrize(
    ("content", "columns", "first"),
    [
        (
            b'"message (text; note; mail)","kind"\n"a prize, text CLAIM","spam"\n"see you","ham"\n',
            2,
            "a prize, text CLAIM",
        ),
        (b"message,kind;;;\na prize of 900,spam;;;\nok,ham;;;\n", 2, "a prize of 900"),
        ("kind¤message\nham¤well, yes, if you like\nspam¤a prize, text CLAIM\n".encode(), 2, "ham"),
        (b"text;note\na, b;1\nc, d;2\n", 2, "a, b"),
        (b"date,text;note\n1;2\n3;4\n", 2, "1"),
        (b"message\none line\nanother: with | bars; and more\n", 1, "one line"),
    ],
)
def test_separator_is_the_one_that_makes_all_rows_even(tmp_path, content, columns, first):
    table = read(tmp_path, "m.csv", content)
    assert len(table.columns) == columns and table.iloc[0, 0] == first
    assert not table.columns.str.contains("[;¤]$").any() and not table.iloc[:, -1].str.endswith(";").any()


def test_quotation_marks_of_a_tsv_are_decided_by_the_whole_file(tmp_path):
    plain = "id\ttext\n" + '1\t"hello\n2\t"yes"\n' * 300
    assert read(tmp_path, "m.tsv", plain.encode())["text"].tolist() == ['"hello', '"yes"'] * 300
    late = "id\ttext\n" + "1\thello\n" * 9000 + '2\t"a ""quote"", and\ttab"\n'
    assert read(tmp_path, "m.tsv", late.encode(), limits=None)["text"].iloc[-1] == 'a "quote", and\ttab'


def test_stray_quotes_of_a_csv_are_text_where_the_rows_stay_even(tmp_path):
    table = opened(tmp_path, "m.csv", b'id,text\n1,"hello\n2,"bye\n3,5" nails\n')
    assert table.table()["text"].tolist() == ['"hello', '"bye', '5" nails'] and said(table) == ["note_unquoted"]


@pytest.mark.parametrize("form", ["{} {}", "__label__{} {}"])
def test_a_label_at_the_beginning_of_each_line_is_no_part_of_the_message(tmp_path, form):
    rows = [("ham", "see you at 7, mum"), ("spam", "WIN a prize; call"), ("ham", "ok")] * 3
    table = opened(tmp_path, "m.txt", "".join(f"{form.format(*row)}\n" for row in rows).encode())
    assert table.table().values.tolist() == [list(row) for row in rows] and table.columns == ["label", "text"]
    assert said(table) == ["note_leading_labels"]


@pytest.mark.parametrize(
    "lines", ["spam again\nspam is what I get\n", "yes I can\nno way\n", "ham sandwich?\nfree tonight?\n"]
)
def test_messages_that_begin_alike_have_no_labels(tmp_path, lines):
    assert read(tmp_path, "m.txt", lines.encode())["text"].tolist() == lines.splitlines()


def test_a_line_end_within_quotation_marks_tears_no_row_of_a_tsv(tmp_path):
    """Here no cell has doubled marks, and none of the columns stands in them as a whole."""
    table = read(tmp_path, "m.tsv", b'text\tlabel\nplain\tham\n"two\nlines"\tspam\n"\rreturned"\tham\n')
    assert table["text"].tolist() == ["plain", "two\nlines", "\rreturned"]
    # A mark at a cell's beginning, and another one a row below, are text as long as all rows are even.
    table = read(tmp_path, "m.tsv", b'text\tlabel\n"plain\tham\nsecond"\tspam\nthird\tham\n')
    assert table["text"].tolist() == ['"plain', 'second"', "third"]
