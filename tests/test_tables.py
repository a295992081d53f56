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
from text_classifier.reading.columns import texts_of
from text_classifier.reading.notes import TableError

# ---------------------------------------------------------------------------- the same rows in every form

MESSAGES = [
    ["ham", "well, yes, if you like"],
    ["spam", "prize of £900 waiting, text CLAIM to 60999"],
    ["ham", 'she said "hi", then left; ok'],
    ["ham", "晚上一起吃饭吗？"],
    ["ham", ""],
    ["spam", "line\nbreak"],
]


def as_separated(delimiter: str, header: bool = True) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows([["kind", "message"]] * header + MESSAGES)
    return text.getvalue()


def packed(content: bytes, name: str) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr(name, content)
        target.writestr("__MACOSX/._m.csv", b"\x00")
    return archive.getvalue()


CONTENT = as_separated(",").encode()
OBJECTS = "\n".join(json.dumps(dict(zip(("kind", "message"), row, strict=True))) for row in MESSAGES).encode()


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
        ("m.csv", as_separated(";").encode("utf-16"), ["note_encoding", "note_delimiter"]),
        ("m.csv", as_separated(",").encode("utf-8-sig"), []),
        ("m.csv", as_separated(";").encode("utf-8-sig"), ["note_delimiter"]),
        ("m.csv", as_separated(",").encode("utf-32"), ["note_encoding"]),
        ("m.csv", as_separated(",").encode("gb18030"), ["note_guessed"]),
        ("m.csv", CONTENT.replace(b"\nspam", b",,\nspam").replace(b"message\n", b"message,,,\n"), []),
        ("m.csv", b"sep=;\n" + as_separated(";").encode(), ["note_delimiter"]),
        ("m.jsonl", OBJECTS, []),
        ("m.json", b"[" + OBJECTS.replace(b"\n", b", ") + b"]", []),
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
    chunks = list(table.chunks(4))
    assert [len(chunk) for chunk in chunks] == [4, 2] and table.rows == 6
    assert pd.concat(chunks, ignore_index=True).equals(table.table())


# ---------------------------------------------------------------------------- what people's files have

JURONG = "Go until jurong point, crazy.. Available only in bugis n great world la e buffet"
PRIZE = "恭喜您获得本公司周年庆典一等奖，请速点击链接领取"
UNNAMED = "column 1, column 2"
NO_HEADER, DELIMITER, JOINED = ["note_no_header"], ["note_delimiter"], ["note_joined"]
LINES, LABELS, QUOTED = ["note_lines"], ["note_leading_labels"], ["note_quoted"]
COLLECTION = 'ham\tGo until "jurong\nspam\tFree entry, call 0800\nham\t"Yes"\n'
OF_COLLECTION = ['Go until "jurong', "Free entry, call 0800", '"Yes"']
BEHIND_LABELS = "ham,so, yes\nspam,WIN, now\nham,ok\nham,a, b, c\n"
MARKS_IN_NAME = '"message (text; note; mail)","kind"\n"a prize, text CLAIM","spam"\n"see you","ham"\n'
LATE_MARKS = "id\ttext\n" + "1\thello\n" * 9000 + '2\t"a ""quote"", and\ttab"\n'


@pytest.mark.parametrize(
    ("name", "content", "columns", "texts", "notes"),
    [
        ("m.txt", "first, with comma\n\n  second\r\n", "text", ["first, with comma", "  second"], []),
        # Without a header, no message is lost.
        ("m.csv", "ham,Ok lar\nspam,a prize\nham,see you\n", UNNAMED, ["Ok lar", "a prize", "see you"], NO_HEADER),
        ("m.tsv", f"ham\t{JURONG}\nspam\tFree entry\n", UNNAMED, [JURONG, "Free entry"], NO_HEADER),
        ("m.csv", f"{PRIZE}\n晚上吃饭吗\n", "column 1", [PRIZE, "晚上吃饭吗"], NO_HEADER),
        ("SMSSpamCollection", COLLECTION, UNNAMED, OF_COLLECTION, DELIMITER + NO_HEADER),
        ("m.csv", COLLECTION, UNNAMED, OF_COLLECTION, DELIMITER + NO_HEADER),
        ("m.txt", COLLECTION, UNNAMED, OF_COLLECTION, DELIMITER + NO_HEADER),
        ("m.tsv", COLLECTION, UNNAMED, OF_COLLECTION, NO_HEADER),
        # Objects in JSON are flat columns.
        ("m.jsonl", '{"sms": {"body": "hi"}, "id": 1}\n{"sms": {"body": "ok"}}\n', "sms.body, id", ["hi", "ok"], []),
        ("m.json", '{"count": 1, "data": [{"text": "hi"}]}', "text", ["hi"], []),
        ("m.json", '{"text": ["hi", "ok"], "label": ["ham", "spam"]}', "text, label", ["hi", "ok"], []),
        # A stray zero byte does not make a file no text.
        ("m.csv", "text,id\n" + "hello there,1\n" * 9 + "o\x00k,2\n", "text, id", ["hello there"] * 9 + ["o\x00k"], []),
        # Messages with commas that are not in quotation marks.
        ("m.csv", "text\nHello, you, there\nHi, Tom\nok\n", "text", ["Hello, you, there", "Hi, Tom", "ok"], JOINED),
        ("m.csv", BEHIND_LABELS, UNNAMED, ["so, yes", "WIN, now", "ok", "a, b, c"], NO_HEADER + JOINED),
        ("m.csv", "at 7, ok?\ndid you eat\nyes, if so\n", "text", ["at 7, ok?", "did you eat", "yes, if so"], LINES),
        ("m.csv", "just one, without a name\n", "text", ["just one, without a name"], LINES),
        # The separator is the one that makes all rows even.
        ("m.csv", MARKS_IN_NAME, "message (text; note; mail), kind", ["a prize, text CLAIM", "see you"], []),
        ("m.csv", "text,kind;;;\na prize of 900,spam;;;\nok,ham;;;\n", "text, kind", ["a prize of 900", "ok"], []),
        ("m.csv", "kind¤text\nham¤well, yes\nspam¤WIN, CLAIM\n", "kind, text", ["well, yes", "WIN, CLAIM"], DELIMITER),
        ("m.csv", "text;note\na, b;1\nc, d;2\n", "text, note", ["a, b", "c, d"], DELIMITER),
        ("m.csv", "date,text;note\n1;2\n3;4\n", "date,text, note", ["1", "3"], DELIMITER),
        ("m.csv", "message\none line\nmore: with | bars; and\n", "message", ["one line", "more: with | bars; and"], []),
        # Quotation marks that do not come in pairs, or stand around some cells of a table with tabs, are text.
        ("m.csv", 'id,text\n1,"hi\n2,"bye\n3,5" nails\n', "id, text", ['"hi', '"bye', '5" nails'], ["note_unquoted"]),
        ("m.tsv", 'id\ttext\n1\tsay "hi\n2\tit\'s 5" long\n', "id, text", ['say "hi', "it's 5\" long"], []),
        ("m.tsv", "id\ttext\n" + '1\t"hello\n2\t"yes"\n' * 300, "id, text", ['"hello', '"yes"'] * 300, []),
        ("m.tsv", 'text\tkind\n"one\tham\ntwo"\tspam\nthree\tham\n', "text, kind", ['"one', 'two"', "three"], []),
        # Those that are doubled within a cell, or hold a tab or line end, are none.
        ("m.tsv", LATE_MARKS, "id, text", ["hello"] * 9000 + ['a "quote", and\ttab'], QUOTED),
        ("m.tsv", 'text\tid\na\t1\n"two\nlines"\t2\n"\rok"\t3\n', "text, id", ["a", "two\nlines", "\rok"], QUOTED),
        # A label at the beginning of each line is no part of the message. Messages may begin alike without labels.
        ("m.txt", "ham at 7, mum\nspam WIN; call\nham ok\n", "label, text", ["at 7, mum", "WIN; call", "ok"], LABELS),
        ("m.txt", "__label__ham ok\n__label__spam WIN; call\n", "label, text", ["ok", "WIN; call"], LABELS),
        ("m.txt", "ham: ok\n[spam] WIN; call\nHAM, 7?\n", "label, text", ["ok", "WIN; call", "7?"], LABELS),
        ("m.txt", "正常：晚上见\n【垃圾】恭喜，中奖\n", "label, text", ["晚上见", "恭喜，中奖"], LABELS),
        ("m.txt", "正常短信\u3000晚上见\n诈骗短信\u3000恭喜\n", "label, text", ["晚上见", "恭喜"], LABELS),
        ("m.txt", "label,text\nham,ok\nspam,WIN\n", "label, text", ["ok", "WIN"], []),
        ("m.txt", "ham ok\nspam\nham 7?\n", "label, text", ["ok", "", "7?"], LABELS),
        ("m.txt", "0 ok\n1 WIN; call\n0 7?\n1 free\n", "label, text", ["ok", "WIN; call", "7?", "free"], LABELS),
        ("m.csv", "label: ham, ok\nlabel: spam\n", "text", ["label: ham, ok", "label: spam"], LINES),
        ("m.txt", "正常上班，别迟到\n垃圾分类，请看\n", "text", ["正常上班，别迟到", "垃圾分类，请看"], []),
        ("m.txt", "系统正常\n谁来倒垃圾\n", "text", ["系统正常", "谁来倒垃圾"], []),
        ("m.txt", "0 calls\n1 call\n", "text", ["0 calls", "1 call"], []),
        # In a column of a table, it stays, and that is said.
        ("m.csv", "id,text\n1,ham ok\n2,spam WIN\n", "id, text", ["ham ok", "spam WIN"], ["note_labels_inside"]),
        # A row of labels is no header, if it is the only one with its label.
        ("m.tsv", "spam\tWIN now\nham\tok\nham\tat 7\n", UNNAMED, ["WIN now", "ok", "at 7"], NO_HEADER),
        ("m.csv", "spam,text\n0,ok\n1,WIN\n", "spam, text", ["ok", "WIN"], []),
        ("m.txt", "spam again\nspam is what I get\n", "text", ["spam again", "spam is what I get"], []),
        ("m.txt", "yes I can\nno way\n", "text", ["yes I can", "no way"], []),
        ("m.txt", "ham sandwich?\nfree tonight?\n", "text", ["ham sandwich?", "free tonight?"], []),
    ],
    ids=lambda value: str(value)[:30],
)
def test_files_are_read_as_they_were_meant(tmp_path, name, content, columns, texts, notes):
    messages = opened(tmp_path, name, content.encode())
    assert texts_of(messages.table(), messages.text_columns).tolist() == texts and said(messages) == notes
    assert ", ".join(messages.columns) == columns


def test_rare_line_ends_within_messages_end_no_row(tmp_path):
    texts = ["one\u2028two", "next\x85line", "page\x0cbreak", "three"]
    for name, line, header in (("m.csv", "{},1", "text,id\n"), ("m.tsv", "{}\t1", "text\tid\n"), ("m.txt", "{}", "")):
        content = header + "\n".join(map(line.format, texts))
        assert read(tmp_path, name, content.encode())["text"].tolist() == texts
    # In JSON, a form feed is written as an escape.
    content = "\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts)
    assert read(tmp_path, "m.jsonl", content.encode())["text"].tolist() == texts


def test_short_rows_and_repeated_names_are_kept(tmp_path):
    table = read(tmp_path, "m.csv", b"text,text,,date\na,b\nc,d,e,f\n")
    assert table.columns.tolist() == ["text", "text (2)", "column 3", "date"]
    assert table.to_numpy().tolist() == [["a", "b", "", ""], ["c", "d", "e", "f"]]


def test_header_is_what_the_user_says(tmp_path):
    table = read(tmp_path, "m.csv", b"text,kind\nhello,ham\n", no_header=True)
    assert table.to_numpy().tolist() == [["text", "kind"], ["hello", "ham"]]
    # A first line that may be a message is told.
    table = opened(tmp_path, "m.csv", b"hello there\nhow are you\n")
    assert said(table) == ["note_header"] and "--no_header" in str(table.notes[0])
    # A label comes back below, but the user asks for a column of this name.
    content = b"ham,words\nham,hello\nspam,WIN\n"
    assert opened(tmp_path, "m.csv", content).rows == 3
    assert opened(tmp_path, "m.csv", content, text_column=["words"]).rows == 2


def test_unquoted_commas_are_put_together_only_where_the_message_comes_last(tmp_path):
    content = b"label,message\nspam,Hello, your prize, claim\nham,Sorry, late\nham,fine\n"
    table = opened(tmp_path, "m.csv", content, text_column=["message"])
    assert table.table()["message"].tolist() == ["Hello, your prize, claim", "Sorry, late", "fine"]
    assert said(opened(tmp_path, "m.csv", content)) == ["note_joined"] and table.notes[0].values["count"] == "2"
    with pytest.raises(TableError, match="Line 2 has 4 cells, but the table has 2 columns"):
        read(tmp_path, "m.csv", content, text_column=["label"])
    with pytest.raises(TableError, match="Line 1 has 3 cells"):
        read(tmp_path, "m.csv", b"see you at seven, ok?,ham\ndid you eat yet,ham\nfine by me,ham\n")


# ---------------------------------------------------------------------------- what cannot be used


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("m.csv", b"", "file_empty"),
        ("m.csv", b"text\n\n", "file_empty"),
        ("m.txt", b" \n\n", "file_empty"),
        ("m.csv", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(range(256)), "file_not_text"),
        ("m.csv", packed(b"0" * 1000, "sheet1.xml"), "file_not_text"),
        ("m.csv", b'id,text\n1,hello\n2,"' + b"x" * 200_000 + b"\n3\n", "file_not_table"),
        ("m.csv", b'id,text\n1,hello\n2,"Great deal\n3,more\n4,"and more"\n', "file_not_table"),
        ("m.csv", b"text\n" + b"," * 500_000 + b"x\n", "file_too_many_columns"),
        ("m.tsv", b"a\t" * 101 + b"b\n1\n", "file_too_many_columns"),
        ("m.csv", "id\ttext".encode("utf-16-le"), "file_empty"),
        ("m.csv.zip", b"text\nhello\n", "file_damaged"),
        ("m.csv.xz", b"text\nhello\n", "file_damaged"),
        ("m.csv.gz", b"\x1f\x8b\x08\x00\x00", "file_damaged"),
        ("m.csv.zst", b"text\nhello\n", "file_type"),
        ("m.xls", b"\xd0\xcf\x11\xe0", "file_type"),
        ("m.jsonl", b'{"text": "hello"}\n["text", "bye"]\n', "file_not_json"),
        ("m.jsonl", b'{"text": "hello"}\n{"text": \n', "file_not_json"),
        ("m.json", b"[" * 100_000, "file_not_json"),
        ("m.csv", b"<!DOCTYPE html>\n<html>\n<p>Sign in, please</p>\n</html>\n", "file_no_data"),
        ("m.csv", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 9\n", "file_no_data"),
        ("m.json", b"[1, 2]", "file_not_json"),
        ("m.jsonl", b'{"text": [{"role": "user", "content": "hi"}]}\n', "file_lists"),
        ("m.jsonl", b"\n", "file_empty"),
        # A text with tabs or bars that are not in quotation marks could belong to either column.
        ("m.tsv", b"id\ttext\n1\thello\n2\tgood\tbye\n", "file_uneven"),
        ("m.csv", b"text\nham\thello\nham\tbye\n", "file_above"),
        ("m.csv", b"Report of May,,\n,,\nlabel,text,\nham,hello,\nspam,WIN,\n", "file_above"),
        ("m.xlsx", b"text\nhello\n", "file_not_workbook"),
        ("m.xlsx", packed(b"0" * 1000, "sheet1.xml"), "file_not_workbook"),
        ("m.xlsx", packed(b"0" * 60 * 2**20, "sheet1.xml"), "file_unpacks_too_large"),
        ("m.txt", b"hello\n" * (FILE_LIMITS.rows + 1), "file_too_many_rows"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(tmp_path, name, content, reason):
    with pytest.raises(TableError) as refused:
        read(tmp_path, name, content)
    assert refused.value.key == reason
    assert all(TEXTS[language][reason].format(**refused.value.values) for language in TEXTS)
    assert str(refused.value).startswith(TEXTS["en"][reason].format(**refused.value.values))
