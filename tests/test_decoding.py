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


WHOLE = "text\n" + "see you at the café – it’s “fine”\n" * 30


@pytest.mark.parametrize(
    ("content", "damaged", "line"),
    [
        (WHOLE.encode() + b"now \xa35 off\n", "1", "32"),
        (f"{WHOLE}bye é".encode()[:-1], "1", "32"),
        (b"text\nall ASCII but one \x81 byte\n", "1", "2"),
        ("text\nall ASCII but £".encode()[:-1], "1", "2"),
        # A no-break space (C2 A0) whose second byte became a space leaves a stray C2; each emoji has four valid bytes.
        ("text\nWin 🎁🎁 now\n🎉 free £5\n".encode() + b"call\xc2 me\nit\xc2 is\n", "2", "4"),
        # Characters that an earlier program damaged are valid.
        ("text\nWin �1000\nit�s here\nI love� you\n£5 off\n".encode(), None, None),
    ],
)
def test_nearly_valid_utf_8_stays_utf_8(tmp_path, content, damaged, line):
    table = opened(tmp_path, "m.csv", content)
    assert table.table()["text"].tolist() == content.decode("utf-8", "replace").splitlines()[1:]
    assert said(table) == ["note_repaired"] * bool(damaged)
    assert not damaged or table.notes[0].values == {"count": damaged, "line": line}


def test_named_encoding_is_used_or_refused(tmp_path):
    content = "text\nźdźbło trawy jest żółte\n".encode("cp1250")
    assert read(tmp_path, "m.csv", content, encoding="CP1250")["text"][0] == "źdźbło trawy jest żółte"
    assert read(tmp_path, "m.csv", "\ufefftext\nhi\n".encode(), encoding="utf-8").columns.tolist() == ["text"]
    for name in ("klingon", "hex", "idna\x00", "rot13"):
        with pytest.raises(TableError, match="There is no encoding"):
            read(tmp_path, "m.csv", content, encoding=name)
