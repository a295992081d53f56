"""Files that people drop into the chat are read as people meant them, or refused with the reason."""

import csv
import io
import zipfile

import openpyxl
import pandas as pd
import pytest

from chat.limits import MAX_FILE_ROWS
from chat.message_tables import (
    TableError,
    find_text_column,
    neutralise_formula,
    read_dropped_file,
    to_csv,
)
from chat.texts import TEXTS
from text_classifier.inference import Classification
from text_classifier.scoring import add_answers

ROWS = [["1", "Free entry, call £100 now"], ["2", 'He said "hi"\nand left'], ["3", ""], ["4", "晚饭吃了吗？"]]


def read(tmp_path, name, content):
    path = tmp_path / "upload"
    path.write_bytes(content)
    return read_dropped_file(path, name)


def as_csv(delimiter=",") -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows([["id", "text"], *ROWS])
    return text.getvalue()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";"])
def test_csv_keeps_order_columns_and_text(tmp_path, encoding, delimiter):
    table = read(tmp_path, "m.CSV", as_csv(delimiter).encode(encoding))
    assert table.columns.tolist() == ["id", "text"] and table.to_numpy().tolist() == ROWS


def test_older_encodings_are_recognised(tmp_path):
    chinese = "编号,内容\n" + "1,恭喜您获得大奖，请点击链接领取\n2,晚上一起吃饭吗？我在公司门口等你\n" * 20
    assert read(tmp_path, "m.csv", chinese.encode("gb18030"))["内容"][0] == "恭喜您获得大奖，请点击链接领取"
    western = "id,text\n" + "1,Win £1000 – don’t miss it\n2,See you at the café\n" * 20
    assert read(tmp_path, "m.csv", western.encode("cp1252"))["text"][0] == "Win £1000 – don’t miss it"


def test_tsv_and_txt_are_one_message_a_line(tmp_path):
    table = read(tmp_path, "m.tsv", b'id\ttext\n1\tsay "hi\n2\tit\'s 5" long\n')
    assert table["text"].tolist() == ['say "hi', "it's 5\" long"]
    table = read(tmp_path, "m.txt", b"first, with comma\n\n  second\r\n")
    assert table["text"].tolist() == ["first, with comma", "  second"]


def test_a_file_without_header_loses_no_message(tmp_path):
    first = "Go until jurong point, crazy.. Available only in bugis n great world la e buffet"
    table = read(tmp_path, "sms.tsv", f"ham\t{first}\nspam\tFree entry in 2 a wkly comp\n".encode())
    assert table.iloc[:, 1].tolist() == [first, "Free entry in 2 a wkly comp"]
    assert find_text_column(table) == "column 2"
    assert len(read(tmp_path, "short.csv", b"ham,Ok lar\nspam,win a prize\nham,see you\n")) == 3
    assert len(read(tmp_path, "zh.csv", "恭喜您获得本公司周年庆典一等奖，请速点击链接领取\n晚上吃饭吗\n".encode())) == 2


def test_a_line_that_names_the_delimiter_is_no_row(tmp_path):
    assert read(tmp_path, "m.csv", b"sep=;\r\nid;text\r\n1;a,b\r\n").to_numpy().tolist() == [["1", "a,b"]]


def test_uneven_rows_and_repeated_names_are_kept(tmp_path):
    table = read(tmp_path, "m.csv", b"text,text,\na,b\nc,d,e,f\n")
    assert table.columns.tolist() == ["text", "text (2)", "column 3", "column 4"]
    assert table.to_numpy().tolist() == [["a", "b", "", ""], ["c", "d", "e", "f"]]


def test_workbook_is_read_with_values_not_formulas(tmp_path):
    workbook = openpyxl.Workbook()
    for row in (["id", "text"], [1, "hello"], [None, None], [2.5, "=1+1 is text"], [3, None]):
        workbook.active.append(row)
    workbook.active["B4"].data_type = "s"
    workbook.save(tmp_path / "upload")
    table = read_dropped_file(tmp_path / "upload", "book.xlsx")
    assert table.to_numpy().tolist() == [["1", "hello"], ["2.5", "=1+1 is text"], ["3", ""]]


def workbook_saying(replacements: dict[str, str]) -> bytes:
    """Return a small workbook; replacements in the XML of its sheet make it state false sizes or positions."""
    workbook = openpyxl.Workbook()
    workbook.active.append(["text"])
    workbook.active.append(["hello"])
    honest, lying = io.BytesIO(), io.BytesIO()
    workbook.save(honest)
    with zipfile.ZipFile(honest) as source, zipfile.ZipFile(lying, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.namelist():
            content = source.read(entry).decode()
            if entry.endswith("sheet1.xml"):
                for old, new in replacements.items():
                    assert old in content
                    content = content.replace(old, new)
            target.writestr(entry, content)
    return lying.getvalue()


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("replacements", "rows"),
    [
        ({'<row r="2"': '<row r="1000000000000"', 'r="A2"': 'r="A1000000000000"'}, None),
        ({'ref="A1:A2"': 'ref="A1:XFD1048576"'}, [["hello"]]),
        ({'r="A2"': 'r="XFD2"'}, None),
    ],
    ids=["far row", "huge size", "far column"],
)
def test_traps_in_workbooks_cost_nothing(tmp_path, replacements, rows):
    content = workbook_saying(replacements)
    if rows:
        assert read(tmp_path, "trap.xlsx", content).to_numpy().tolist() == rows
    else:
        with pytest.raises(TableError):
            read(tmp_path, "trap.xlsx", content)


def zipped(size: int) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", b"0" * size)
    return content.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("m.exe", b"MZ", "file_type"),
        ("noending", b"text\nhello\n", "file_type"),
        ("m.csv", b"", "file_empty"),
        ("m.csv", b"text\n\n", "file_empty"),
        ("m.txt", b" \n\n", "file_empty"),
        ("m.csv", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(range(256)), "file_not_text"),
        ("m.csv", zipped(1000), "file_not_text"),
        ("m.csv", b'text\n"' + b"x" * 200_000, "file_not_table"),
        ("m.csv", b'id,text\n1,hello\n2,"Great deal\n3,more\n4,"and more"\n', "file_not_table"),
        ("m.csv", b"text\n" + b"," * 500_000 + b"x\n", "file_too_many_columns"),
        ("m.csv", "id\ttext".encode("utf-16-le"), "file_not_text"),
        ("m.xlsx", b"text\nhello\n", "file_not_workbook"),
        ("m.xlsx", zipped(1000), "file_not_workbook"),
        ("m.xlsx", zipped(60 * 2**20), "file_unpacks_too_large"),
        ("m.txt", b"hello\n" * (MAX_FILE_ROWS + 1), "file_too_many_rows"),
        ("m.csv", b"text\n" + b"hello\n" * (MAX_FILE_ROWS + 1), "file_too_many_rows"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(tmp_path, name, content, reason):
    with pytest.raises(TableError) as refused:
        read(tmp_path, name, content)
    assert refused.value.key == reason
    assert all(TEXTS[language][reason].format(**refused.value.values) for language in TEXTS)


def test_text_column_is_found_or_asked_for():
    long = ["a message of some length, as people write them"] * 3
    assert find_text_column(pd.DataFrame({"id": ["1"] * 3, "Message": ["hi"] * 3, "note": long})) == "Message"
    assert find_text_column(pd.DataFrame({"label": ["ham"] * 3, "v2": long})) == "v2"
    assert find_text_column(pd.DataFrame({"anything": ["x"]})) == "anything"
    assert find_text_column(pd.DataFrame({"a": long, "b": long})) is None
    assert find_text_column(pd.DataFrame({"text": long, "message": long})) is None


@pytest.mark.parametrize("cell", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1+1"])
def test_formulas_are_neutralised(cell):
    assert neutralise_formula(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["-5", "+44 20 7946 0958", "-1,234.5", "hello = world", "a@b.c", "", "5%"])
def test_numbers_and_text_stay_as_they_are(cell):
    assert neutralise_formula(cell) == cell


def test_result_has_every_row_and_column_in_order_and_opens_in_a_spreadsheet():
    table = pd.DataFrame({"predicted_label": ["x", "y", "z"], "=text": ["=1+1", "晚饭", ""]})
    answers = [Classification("spam", 0.98765, True), Classification("ham", 0.1, False), None]
    content = to_csv(add_answers(table, answers, ["spam", "ham", None], "spam"))
    assert content.startswith(b"\xef\xbb\xbf"), "Excel takes the file for another encoding otherwise"
    rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    assert rows == [
        ["predicted_label", "'=text", "predicted_label_2", "spam_probability", "truncated"],
        ["x", "'=1+1", "spam", "0.9877", "true"],
        ["y", "晚饭", "ham", "0.1000", "false"],
        ["z", "", "", "", ""],
    ]
