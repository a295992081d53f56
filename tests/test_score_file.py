"""One command classifies a file of any length and can be stopped at any moment. Results open in a spreadsheet."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
from shared import PACKAGE_PATH

from chat.dropped_files import neutralise_formula, to_csv
from text_classifier import runtime, scoring
from text_classifier.__main__ import main
from text_classifier.classifier import Answer, Classifier
from text_classifier.reading.messages import read_messages

SCORE = [sys.executable, "-m", "text_classifier"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": PACKAGE_PATH}


@pytest.fixture
def reviews(tmp_path):
    """A CSV file of reviews with quotes, line breaks, commas, blank texts and words like NA."""
    texts = ["A joy!", 'He said "no",\nand left', "", "NA", "  ", "dull, long", "好看"]
    rows = [(number, texts[number % 7] + (str(number) if number % 7 in (0, 5) else "")) for number in range(100)]
    path = tmp_path / "reviews.csv"
    pd.DataFrame(rows, columns=["id", "text"]).to_csv(path, index=False)
    return path


def command(source: Path, adapter: Path, *more: str, output: Path | str | None = None) -> list[str]:
    """Return the arguments that score a file; the result stands beside it if no output is named."""
    output = output or source.with_name("scored.csv")
    return [str(source), "--output", str(output), "--text_column", "text", "--adapter_dir", str(adapter), *more]


def as_texts(table: Path) -> pd.DataFrame:
    return pd.read_csv(table, dtype=str, keep_default_na=False)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_every_row_comes_back_with_its_answer(reviews, tiny_review_adapter, monkeypatch, capsys):
    monkeypatch.setattr(scoring, "ROWS_PER_CHUNK", 16)
    assert main(command(reviews, tiny_review_adapter)) == 0
    assert "100 rows in" in capsys.readouterr().out
    given, scored = as_texts(reviews), as_texts(reviews.with_name("scored.csv"))
    assert scored[["id", "text"]].equals(given)
    added = "predicted_label positive_probability truncated answered_by other_language less_sure"
    assert list(scored.columns[2:]) == added.split()
    blank = given["text"].str.strip().eq("")
    assert scored["predicted_label"].eq("").equals(blank) and 0 < blank.sum() < 100
    answers = Classifier.load(tiny_review_adapter).answer(given["text"][~blank])
    probability = scored["positive_probability"][~blank].astype(float)
    # Scoring computes in bfloat16 where the CPU has it, so the probabilities may differ a little.
    assert probability.tolist() == pytest.approx([answer.probability for answer in answers], abs=0.02)
    assert scored["less_sure"][~blank].eq("true").equals(probability.between(0.1, 0.9))
    assert names_in(reviews.parent) == ["reviews.csv", "scored.csv"]


def test_killed_at_random_it_goes_on_and_nothing_is_lost_or_doubled(tmp_path, tiny_review_adapter):
    source = tmp_path / "messages.csv"
    source.write_text("text\n" + "".join(f"message number {number}\n" for number in range(6_000)))
    command_line = [*SCORE, *command(source, tiny_review_adapter)]
    part, state = tmp_path / "scored.csv.part", tmp_path / "scored.csv.part.json"

    def rows_done() -> int:
        return json.loads(state.read_text())["rows"] if state.is_file() else 0

    for _ in range(2):
        before = rows_done()
        process = subprocess.Popen(command_line, env=ENVIRONMENT, stderr=subprocess.DEVNULL)
        while process.poll() is None and rows_done() == before:
            time.sleep(0.01)
        process.kill()
        assert process.wait() == -signal.SIGKILL and not (tmp_path / "scored.csv").exists()
    # A process that is killed while it writes leaves half a row.
    with part.open("ab") as file:
        file.write(b"message num")
    assert main(command(source, tiny_review_adapter)) == 0
    texts = as_texts(tmp_path / "scored.csv")["text"].tolist()
    assert texts == [f"message number {number}" for number in range(6_000)]
    assert names_in(tmp_path) == ["messages.csv", "scored.csv"]


def test_another_file_is_not_mixed_into_an_unfinished_one(reviews, tiny_review_adapter, monkeypatch, capsys):
    monkeypatch.setattr(scoring, "ROWS_PER_CHUNK", 16)
    usual, calls = scoring.score_table, iter(range(3))

    def interrupted(*args):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return usual(*args)

    with monkeypatch.context() as patch:
        patch.setattr(scoring, "score_table", interrupted)
        assert main(command(reviews, tiny_review_adapter)) == 130
    assert "goes on from here" in capsys.readouterr().err
    given = reviews.read_text()
    reviews.write_text(given.replace("dull", "long"))
    assert main(command(reviews, tiny_review_adapter)) == 1
    assert "belongs to another file, adapter or option" in capsys.readouterr().err
    reviews.write_text(given)
    assert main(command(reviews, tiny_review_adapter)) == 0
    assert len(pd.read_csv(reviews.with_name("scored.csv"))) == 100


def test_without_its_unfinished_rows_a_run_begins_anew(reviews, tiny_review_adapter, monkeypatch):
    """A kill between the last two steps leaves the state alone; the result must not become a hole of zero bytes."""
    monkeypatch.setattr(scoring, "ROWS_PER_CHUNK", 16)
    with monkeypatch.context() as patch:
        patch.setattr(scoring.Path, "unlink", lambda path, missing_ok=False: None)
        assert main(command(reviews, tiny_review_adapter)) == 0
    scored = reviews.with_name("scored.csv")
    first = scored.read_bytes()
    assert reviews.with_name("scored.csv.part.json").is_file()
    reviews.with_name("scored.csv.part").unlink()
    assert main(command(reviews, tiny_review_adapter)) == 0
    assert scored.read_bytes() == first


@pytest.mark.parametrize(
    ("content", "more", "message"),
    [
        (None, [], "No such file"),
        (b"", [], "no messages"),
        (b"text\n", [], "no messages"),
        (b"body\nhello\n", [], "no column 'text', only 'body'.*--text_column"),
        (b"text,id\n" + b"fine,1\n" * 5000 + b"one, two,2\n", [], "Line 5,002 has 3 cells, but the table has 2"),
        (b"text\nhello\n", ["--encoding", "klingon"], "no encoding 'klingon'.*--encoding"),
        (b"text,kind\nhello,good\nbye,bad\nso,so\n", ["--label_column", "kind"], "two labels; the data has 3"),
        (b"text,kind\nhello,good\n", ["--label_column", "sort"], "no column 'sort'"),
        (b"text\nhello\n", ["--adapter_dir", "nowhere"], "nowhere"),
        (b"text\nhello\n", ["--output", "reviews.csv"], "is the file itself"),
        (b"text\nhello\n", ["--output", "."], "is a folder"),
        (b"text\nhello\n", ["--output", "no/such/folder/scored.csv"], "no folder no/such/folder"),
        (b"text\nhello\n", ["--output", "scored.ods"], "must end in .csv, .tsv or .jsonl"),
        (b"text\nhello\n", ["--output", "scored"], "must end in .csv, .tsv or .jsonl"),
    ],
)
def test_mistakes_end_in_one_clear_error_and_leave_nothing(
    tmp_path, tiny_review_adapter, monkeypatch, capsys, content, more, message
):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / "reviews.csv").write_bytes(content)
    assert main(command(Path("reviews.csv"), tiny_review_adapter, *more)) == 1
    # The progress bar of loading the weights may come before the error.
    *_, error = capsys.readouterr().err.splitlines()
    assert error.startswith("Error: ") and re.search(message, error)
    assert os.listdir(tmp_path) == (["reviews.csv"] if content is not None else [])


def test_labels_of_a_file_measure_the_answers_and_the_threshold_moves_them(reviews, tiny_review_adapter, capsys):
    as_texts(reviews).assign(right=["Positive", " negative"] * 50).to_csv(reviews, index=False)
    alone = [str(reviews), "--text_column", "text", "--adapter_dir", str(tiny_review_adapter)]
    assert main([*alone, "--label_column", "right"]) == 0, "figures need no output"
    printed = capsys.readouterr().out
    assert "Acc %" in printed and printed.endswith("100 rows\n") and names_in(reviews.parent) == [reviews.name]
    with pytest.raises(SystemExit):
        main(alone)
    assert "--output is needed" in capsys.readouterr().err
    assert main(command(reviews, tiny_review_adapter, "--label_column", "right", "--threshold", "0.000001")) == 0
    printed = capsys.readouterr().out
    scored = as_texts(reviews.with_name("scored.csv"))
    told = scored[scored["predicted_label"].ne("")]
    assert set(told["predicted_label"]) == {"positive"}
    right = told["right"].str.strip().str.lower().eq("positive")
    (row,) = [line for line in printed.splitlines() if "reviews.csv" in line and line.startswith("|")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:3] == ["reviews.csv", str(len(told))]
    assert cells[4] == f"{100 * right.mean():.2f}" and cells[-1] == f"0/{(~right).sum()}/0/{right.sum()}"


def test_files_of_every_form_give_the_same_answers(reviews, tiny_review_adapter):
    def probabilities(source: Path, *more: str) -> list[float]:
        assert main(command(source, tiny_review_adapter, *more)) == 0
        return pd.read_csv(source.with_name("scored.csv"))["positive_probability"].tolist()

    expected, table = pytest.approx(probabilities(reviews), nan_ok=True, abs=1e-3), as_texts(reviews)
    table.to_excel(reviews.with_name("other.xlsx"), index=False)
    table.to_json(reviews.with_name("other.jsonl"), orient="records", lines=True)
    table.to_csv(reviews.with_name("semicolons.csv"), index=False, sep=";", encoding="utf-16")
    table.to_csv(reviews.with_name("no_header.csv"), index=False, header=False)
    halves = table["text"].str.partition("\n")
    table.assign(text=halves[0], rest=halves[2]).to_csv(reviews.with_name("subject_and_body.csv"), index=False)
    for name in ("other.xlsx", "other.jsonl", "semicolons.csv"):
        assert probabilities(reviews.with_name(name)) == expected
    assert probabilities(reviews.with_name("no_header.csv"), "--no_header", "--text_column", "column 2") == expected
    assert probabilities(reviews.with_name("subject_and_body.csv"), "--text_column", "text", "rest") == expected


@pytest.mark.parametrize("batch_tokens", [1, 40, 10_000])
def test_answers_do_not_depend_on_what_is_read_together(batch_tokens, tiny_review_adapter, monkeypatch):
    monkeypatch.setattr(runtime, "_BATCH_TOKENS", batch_tokens)
    classifier = Classifier.load(tiny_review_adapter)
    texts = [f"message {number} " + "very " * (number % 9) + "long" for number in range(40)]
    texts += ["free prize " * 100, "<|endoftext|>", "?\x00", "免费领奖 \ud800"]
    alone = [classifier.answer([text])[0].probability for text in texts]
    together = [answer.probability for answer in classifier.answer(texts)]
    assert together == pytest.approx(alone, abs=1e-5)


# ---------------------------------------------------------------------------- where the result goes


# Every character that means something to a reader of tables, and texts that one takes for something else.
STRANGE = [
    *(f"a{chr(code)}b" for code in (*range(32), 0x7F, 0x85, 0x2028)),
    *("\r", "a\r", '"', '""', 'say "hi"', ",", ";", "a\tb", "' x", "=1+1", "NA", "007", "é 好 🎁", "_x000D_"),
]


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".xlsx", ".csv.gz", ".jsonl.xz"])
def test_a_result_is_what_its_name_says_and_every_cell_is_read_back(tmp_path, tiny_review_adapter, ending):
    source, target = tmp_path / "messages.jsonl", tmp_path / f"scored{ending}"
    source.write_text("".join(json.dumps({"id": str(id), "text": text}) + "\n" for id, text in enumerate(STRANGE)))
    assert main(command(source, tiny_review_adapter, output=target)) == 0
    assert read_messages(target).table()["text"].tolist() == STRANGE
    if ending in (".csv", ".csv.gz"):
        assert as_texts(target)["text"].tolist() == STRANGE
    elif ending == ".tsv":
        with target.open(encoding="utf-8", newline="") as file:
            assert [row[1] for row in csv.reader(file, delimiter="\t")][1:] == STRANGE
    elif ending == ".xlsx":
        table = pd.read_excel(target, dtype=str, keep_default_na=False)
        assert table["id"].tolist() == list(map(str, range(len(STRANGE))))
    assert names_in(tmp_path) == ["messages.jsonl", target.name]


def test_excel_is_told_the_encoding_of_a_csv_that_is_not_ascii(tmp_path, tiny_review_adapter):
    source = tmp_path / "messages.csv"
    for text, mark in (("hello", b""), ("好看", b"\xef\xbb\xbf")):
        source.write_text(f"text\n{text}\n", encoding="utf-8")
        assert main(command(source, tiny_review_adapter)) == 0
        assert source.with_name("scored.csv").read_bytes().startswith(mark + b"text,predicted_label")


def test_devices_pipes_and_links_are_written_to_and_stay(reviews, tiny_review_adapter, tmp_path, capsys):
    pipe, link, real = tmp_path / "pipe", tmp_path / "link.csv", tmp_path / "real.csv"
    os.mkfifo(pipe)
    link.symlink_to(real.name)
    read = ThreadPoolExecutor(1).submit(pipe.read_bytes)
    for target in (pipe, link, Path("/dev/null")):
        assert main(command(reviews, tiny_review_adapter, output=target)) == 0
    assert read.result(timeout=60).startswith(b"id,text,predicted_label") and pipe.is_fifo()
    assert link.is_symlink() and real.read_bytes() == b"\xef\xbb\xbf" + read.result()
    assert Path("/dev/null").is_char_device()
    assert names_in(tmp_path) == ["link.csv", "pipe", "real.csv", "reviews.csv"]


@pytest.mark.parametrize("output", ["-", "/dev/stdout"])
def test_standard_input_and_output(reviews, tiny_review_adapter, output):
    assert main(command(reviews, tiny_review_adapter)) == 0
    arguments = command(Path("-"), tiny_review_adapter, output=output)
    result = subprocess.run([*SCORE, *arguments], env=ENVIRONMENT, input=reviews.read_bytes(), capture_output=True)
    assert result.returncode == 0, result.stderr.decode()
    assert result.stdout == reviews.with_name("scored.csv").read_bytes().removeprefix(b"\xef\xbb\xbf")
    assert "100 rows\n" in result.stderr.decode()


def test_a_link_that_leads_to_itself_is_told(reviews, tiny_review_adapter, tmp_path, capsys):
    loop = tmp_path / "loop.csv"
    loop.symlink_to(loop)
    assert main(command(reviews, tiny_review_adapter, output=loop)) == 1
    assert "is a link that leads to itself" in capsys.readouterr().err


def test_two_processes_do_not_write_one_result(reviews, tiny_review_adapter, capsys):
    target = reviews.with_name("scored.csv")
    holding = (
        "import pathlib, sys, time, text_classifier.files as files\n"
        "with files.exclusive(pathlib.Path(sys.argv[1])): print('ready', flush=True); time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", holding, target], env=ENVIRONMENT, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        assert main(command(reviews, tiny_review_adapter)) == 1
        other.kill()
    assert f"scored.csv is being written by process {other.pid}" in capsys.readouterr().err
    assert main(command(reviews, tiny_review_adapter)) == 0, "the lock of a killed process holds nobody up"
    assert names_in(reviews.parent) == ["reviews.csv", "scored.csv"]


# ---------------------------------------------------------------------------- what the chat gives back


def test_formulas_are_neutralised_and_numbers_and_text_stay_as_they_are():
    for cell in ("=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1+1"):
        assert neutralise_formula(cell) == f"'{cell}"
    for cell in ("-5", "+44 20 7946 0958", "-1,234.5", "hello = world", "a@b.c", "", "5%"):
        assert neutralise_formula(cell) == cell


def test_result_has_every_row_and_column_in_order_and_opens_in_a_spreadsheet():
    table = pd.DataFrame({"predicted_label": ["x", "y", "z"], "=text": ["=1+1", "晚饭", ""]})
    names = {"labels": ("ham", "spam"), "threshold": 0.5}
    answers = [Answer(0.98765, True, "both", False, **names), Answer(0.2, False, "TF-IDF", True, **names), None]
    content = to_csv(scoring.add_answers(table, answers, "spam", 0.5))
    assert content.startswith(b"\xef\xbb\xbf"), "Excel takes the file for another encoding otherwise"
    rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    more = ["predicted_label_2", "spam_probability", "truncated", "answered_by", "other_language", "less_sure"]
    assert rows == [
        ["predicted_label", "'=text", *more],
        ["x", "'=1+1", "spam", "0.9877", "true", "both", "false", "false"],
        ["y", "晚饭", "ham", "0.2000", "false", "TF-IDF", "true", "true"],
        ["z", "", "", "", "", "", "", ""],
    ]
