"""Workbooks: the sheet with the messages is read, and traps cost nothing."""

import io
import zipfile

import openpyxl
import pytest
from reading import opened, read, workbook

from text_classifier.reading.messages import read_messages
from text_classifier.reading.notes import TableError

TALKS = [["id", "message"], [1, "a prize, text CLAIM"], [2, "see you"]]


@pytest.mark.parametrize(
    "others",
    [{"Cover": [["Report"], ["made by the shop system"]]}, {"Empty": []}, {"hidden": [["text", "b"], ["a", "open"]]}],
)
def test_the_sheet_with_messages_is_read_and_said(tmp_path, others):
    table = opened(tmp_path, "m.xlsx", workbook(**others, Messages=TALKS))
    assert table.table()["message"].tolist() == ["a prize, text CLAIM", "see you"]
    assert table.notes[0].values == {"sheet": "Messages", "others": next(iter(others))}


def test_of_several_sheets_with_messages_one_must_be_named(tmp_path):
    content = workbook(May=TALKS, June=[["id", "message"], [1, "hello"]])
    with pytest.raises(TableError, match=r"May, June.*--sheet") as refused:
        read(tmp_path, "m.xlsx", content)
    assert refused.value.values["choices"] == ["May", "June"]
    assert read(tmp_path, "m.xlsx", content, sheet="june")["message"].tolist() == ["hello"]
    with pytest.raises(TableError, match="no sheet 'July'"):
        read(tmp_path, "m.xlsx", content, sheet="July")


def test_escapes_of_a_workbook_are_undone_and_wide_rows_kept(tmp_path):
    content = workbook(Sheet=[["id", "message"], [1, "prize_x000D_\ntext CLAIM"], [2, "ok", "a note"]])
    table = read(tmp_path, "m.xlsx", content)
    assert table["message"][0] == "prize\r\ntext CLAIM" and table.columns.tolist() == ["id", "message", "column 3"]


def test_workbook_is_read_with_values_not_formulas(tmp_path):
    workbook = openpyxl.Workbook()
    for row in (["id", "text"], [1, "hello"], [None, None], [2.5, "=1+1 is text"], [3, None]):
        workbook.active.append(row)
    workbook.active["B4"].data_type = "s"
    workbook.save(tmp_path / "upload")
    table = read_messages(tmp_path / "upload", name="book.xlsx").table()
    assert table.to_numpy().tolist() == [["1", "hello"], ["2.5", "=1+1 is text"], ["3", ""]]


def workbook_saying(replacements: dict[str, str]) -> bytes:
    """Return a small workbook; replacements in the XML of its sheet make it state false sizes or positions."""
    honest, lying = io.BytesIO(workbook(Sheet=[["text"], ["hello"]])), io.BytesIO()
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
