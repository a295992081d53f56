"""The encoding of a text file is found, named or asked for."""

import pytest
from reading import opened, read, said

from text_classifier.reading.notes import TableError


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("gb18030", "恭喜您获得大奖，请点击链接领取"),
        ("big5", "恭喜您獲得大獎，請點擊連結領取"),
        ("cp932", "明日の朝、駅で会いましょう"),
        ("cp949", "내일 저녁에 같이 밥 먹을까요"),
        ("cp1251", "встретимся завтра у вокзала"),
        ("cp1252", "Win £1000 – don’t miss it at the café"),
        ("cp1254", "akşam yağmur yağıyor şemsiyeni al"),
        ("utf-16-le", "see you at the café"),
        ("utf-16-be", "see you at the café"),
        ("utf-16-le", "恭喜您获得大奖，请点击链接领取"),
    ],
)
def test_guessed_encodings_are_named(tmp_path, encoding, text):
    content = f"id,text\n{f'1,{text}{chr(10)}' * 20}".encode(encoding)
    table = opened(tmp_path, "m.csv", content)
    assert table.table()["text"][0] == text
    note = str(table.notes[0])
    assert said(table) == ["note_guessed"] and encoding in note and "--encoding" in note


def test_nearly_valid_utf_8_stays_utf_8(tmp_path):
    whole = "text\n" + "see you at the café – it’s “fine”\n" * 30
    table = opened(tmp_path, "m.csv", whole.encode() + b"now \xa35 off\n")
    assert table.table()["text"].iloc[[0, -1]].tolist() == ["see you at the café – it’s “fine”", "now �5 off"]
    assert table.notes[0].values == {"count": "1", "line": "32"} and said(table) == ["note_repaired"]
    assert said(opened(tmp_path, "m.csv", f"{whole}bye é".encode()[:-1])) == ["note_repaired"]
    assert said(opened(tmp_path, "m.csv", b"text\nall ASCII but one \x81 byte\n")) == ["note_repaired"]
    assert said(opened(tmp_path, "m.csv", "text\nall ASCII but £".encode()[:-1])) == ["note_repaired"]


def test_utf_8_with_emoji_and_a_few_stray_bytes_stays_utf_8(tmp_path):
    """A no-break space (C2 A0) whose second byte became a space leaves a stray C2; each emoji has four valid bytes."""
    content = "text\nWin 🎁🎁 now\n🎉 free £5\n".encode() + b"call\xc2 me\nit\xc2 is\n"
    table = opened(tmp_path, "m.csv", content)
    assert table.table()["text"].tolist() == ["Win 🎁🎁 now", "🎉 free £5", "call� me", "it� is"]
    assert said(table) == ["note_repaired"] and table.notes[0].values == {"count": "2", "line": "4"}


def test_characters_that_an_earlier_program_damaged_are_valid_utf_8(tmp_path):
    table = opened(tmp_path, "m.csv", "text\nWin �1000\nit�s here\nI love� you\n£5 off\n".encode())
    assert table.table()["text"].tolist()[-1] == "£5 off" and said(table) == []


def test_named_encoding_is_used_or_refused(tmp_path):
    content = "text\nźdźbło trawy jest żółte\n".encode("cp1250")
    assert read(tmp_path, "m.csv", content, encoding="CP1250")["text"][0] == "źdźbło trawy jest żółte"
    assert read(tmp_path, "m.csv", "\ufefftext\nhi\n".encode(), encoding="utf-8").columns.tolist() == ["text"]
    for name in ("klingon", "hex", "idna\x00", "rot13"):
        with pytest.raises(TableError, match="There is no encoding"):
            read(tmp_path, "m.csv", content, encoding=name)
