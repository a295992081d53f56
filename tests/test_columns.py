"""Columns of messages and labels are found, or asked for."""

import pandas as pd
import pytest

from text_classifier.reading.columns import choose_label_column, choose_text_columns
from text_classifier.reading.notes import TableError


def test_columns_are_named_found_or_asked_for():
    rows = [["ham" if number % 3 else "spam", f"see you at {number}"] for number in range(12)]
    table = pd.DataFrame(rows, columns=["v1", "v2"])
    notes = []
    assert choose_text_columns(table, None, notes) == ["v2"] and "'v2'" in str(notes[0])
    assert choose_label_column(table, None, ["v2"], notes) == "v1" and "'v1'" in str(notes[1])
    both = table.assign(Text="hello", Label="a")
    assert choose_text_columns(both, None, notes) == ["Text"]
    assert choose_label_column(both, None, ["Text"], notes) == "Label" and len(notes) == 2
    for named in (["body"], ["v2", "body"]):
        with pytest.raises(TableError, match=r"no column 'body', only 'v1', 'v2'\. .*--text_column"):
            choose_text_columns(table, named, notes)
    with pytest.raises(TableError, match="Which column has the labels"):
        choose_label_column(table.assign(other=["a", "b"] * 6), None, ["v2"], notes)
    assert choose_label_column(table.assign(number=list(map(str, range(12)))), None, ["v2"], []) == "v1"
    # The only other column has the labels, unless all its cells differ.
    with pytest.raises(TableError, match="Which column has the labels: 'v1'"):
        choose_label_column(table.assign(v1=table.index.astype(str)), None, ["v2"], [])
    assert choose_label_column(table[1:4], None, ["v2"], []) == "v1"
    with pytest.raises(TableError, match="no column of labels"):
        choose_label_column(table[["v2"]], None, ["v2"], [])
    with pytest.raises(TableError, match="'v2' cannot have both"):
        choose_label_column(table, "v2", ["v2"], [])


LONG = ["a message of some length, as people write them"] * 3


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({"id": ["1"] * 3, "Message": ["hi"] * 3, "note": LONG}, "Message"),
        ({"label": ["ham"] * 3, "v2": LONG}, "v2"),
        ({"anything": ["x"]}, "anything"),
        ({"a": LONG, "b": LONG}, None),
        ({"text": LONG, "message": LONG}, None),
        # Of two columns with the same name, neither is taken without a reason.
        ({"text": ["ham", "spam"] * 6, "text (2)": [f"see you at {number}" for number in range(12)]}, "text (2)"),
    ],
)
def test_text_column_is_found_or_asked_for(columns, found):
    if found:
        assert choose_text_columns(pd.DataFrame(columns), None, []) == [found]
    else:
        with pytest.raises(TableError, match="Which column has the messages"):
            choose_text_columns(pd.DataFrame(columns), None, [])
