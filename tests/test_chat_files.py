"""A file of messages dropped into the chat, in a real browser."""

import csv
import io
import re
import time
from pathlib import Path

import httpx
import openpyxl
import pytest
from chat_page import DOUBTFUL, HAM, PATIENCE_MS, SPAM, ask, either, messages_csv, upload, visit
from playwright.sync_api import expect


@pytest.mark.registry
def test_file_gives_charts_rows_and_the_whole_result(page):
    upload(page, "messages.csv", messages_csv(60))
    expect(page.get_by_text(either(page, "完整结果", "Complete result"))).to_be_visible()
    labels = {"zh": ["垃圾信息: 20 (33.3 %)", "前 10 行"], "en": ["spam: 20 (33.3 %)", "First 10 rows"]}
    for text in labels[page.language]:
        expect(page.get_by_text(text)).to_be_visible()
    expect(page.get_by_role("row")).to_have_count(11)
    with page.expect_download() as download:
        page.get_by_text("messages_classified.csv").click()
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_bytes().decode("utf-8-sig"), newline="")))
    assert [row["id"] for row in rows] == [str(number) for number in range(60)]
    assert [row["predicted_label"] for row in rows[:2]] == ["spam", "ham"]
    assert rows[2]["message"] == "'=1+1", "a formula that the spreadsheet will not run"
    assert float(rows[0]["spam_probability"]) > 0.99
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.registry
def test_a_text_beside_a_file_is_answered_too(chinese_page):
    page = chinese_page
    page.locator("#chat-input").fill(HAM)
    upload(page, "messages.csv", messages_csv(60))
    expect(page.get_by_text("该文本被分类为: 正常信息")).to_be_visible()
    expect(page.get_by_text("messages_classified.csv")).to_be_visible()


@pytest.mark.registry
def test_five_thousand_messages_can_be_stopped_and_what_is_done_is_kept(page):
    upload(page, "many.csv", messages_csv(5000, DOUBTFUL))
    progress = page.get_by_role("progressbar")
    expect(progress).to_be_visible()
    expect(progress).not_to_have_attribute("aria-valuenow", "0")
    page.get_by_role("button", name=either(page, "停止", "Stop"), exact=True).click()
    said = either(page, "已停止。以下是停止前已完成的部分", "This is what was done until then")
    expect(page.get_by_text(said)).to_be_visible()
    expect(page.get_by_text(re.compile(either(page, "未分类: [1-9]", "not classified: [1-9]")))).to_be_visible()
    expect(page.get_by_text("many_classified.csv")).to_be_visible()
    expect(ask(page, HAM)).to_contain_text("正常信息")


@pytest.mark.registry
def test_the_stop_button_of_the_page_works_too_and_speaks_the_language(chinese_page):
    page = chinese_page
    ask(page, HAM)
    upload(page, "many.csv", messages_csv(5000, DOUBTFUL))
    expect(page.get_by_role("progressbar")).to_be_visible()
    page.locator("#stop-button").click()
    expect(page.get_by_text("已停止。以下是停止前已完成的部分")).to_be_visible()
    expect(page.get_by_text("已停止。", exact=True)).to_be_visible()
    assert page.get_by_text("Task manually stopped.").count() == 0


@pytest.mark.registry
def test_text_column_is_asked_for_where_it_is_not_clear(page):
    question = "What do you think about this one?"
    workbook = openpyxl.Workbook()
    for row in (["left", "right"], [SPAM, question], [HAM, question]):
        workbook.active.append(row)
    content = io.BytesIO()
    workbook.save(content)
    upload(page, "book.xlsx", content.getvalue())
    page.get_by_role("button", name="left").click()
    expect(page.get_by_text(either(page, "垃圾信息: 1 (50.0 %)", "spam: 1 (50.0 %)"))).to_be_visible()
    assert page.get_by_text("Selected:").count() == 0


@pytest.mark.registry
def test_sheet_is_asked_for_where_it_is_not_clear(chinese_page):
    page = chinese_page
    workbook = openpyxl.Workbook()
    workbook.active.title = "May"
    for sheet in (workbook.active, workbook.create_sheet("June")):
        for row in (["id", "message"], [1, SPAM], [2, HAM]):
            sheet.append(row)
    content = io.BytesIO()
    workbook.save(content)
    upload(page, "book.xlsx", content.getvalue())
    page.get_by_role("button", name="June").click()
    expect(page.get_by_text("读取了工作表 June；没有读取：May。")).to_be_visible()


@pytest.mark.registry
def test_a_guessed_encoding_is_named_and_another_can_be_chosen(page):
    text = "Příští týden přijedu"
    upload(page, "cesky.csv", f"text\n{text}\nPřijdeš večer?\n".encode("cp1250"))
    expect(page.get_by_text(either(page, "文件没有注明编码，推测为", "Its encoding is not stated;"))).to_be_visible()
    # Wait for the end of the answer: until then the page still moves, and `ask` would take the end for its own answer.
    expect(page.get_by_text("cesky_classified.csv")).to_be_visible()
    expect(page.locator("#stop-button")).to_be_hidden()
    page.get_by_role("button", name=either(page, "文字乱码", "Wrong characters")).click()
    page.get_by_role("button", name="cp1250").click()
    expect(page.get_by_text(text).last).to_be_visible()
    expect(page.get_by_text("cesky_classified.csv")).to_have_count(2)
    expect(ask(page, HAM)).to_contain_text("正常信息")


@pytest.mark.registry
def test_files_that_cannot_be_used_are_refused_politely(chinese_page):
    page = chinese_page
    upload(page, "fake.xlsx", b"not a workbook")
    expect(page.get_by_text("不是 Excel 工作簿")).to_be_visible()
    upload(page, "picture.csv", b"\x89PNG\r\n\x1a\n\x00\x00")
    expect(page.get_by_text("这个文件不是文本")).to_be_visible()
    upload(page, "empty.csv", b"")
    expect(page.get_by_text("文件里没有消息。")).to_be_visible()
    upload(page, "long.txt", b"hello\n" * 10_001)
    expect(page.get_by_text("行数太多：最多 10,000 行")).to_be_visible()
    upload(page, "program.exe", b"MZ")
    expect(page.get_by_text("不支持这种文件。可以使用：.csv .tsv .txt .jsonl .json .xlsx")).to_be_visible()
    huge = {"name": "huge.csv", "mimeType": "", "buffer": b"x" * (10 * 2**20 + 1)}
    page.locator("#upload-button-input").set_input_files(huge)
    expect(page.locator("[data-sonner-toast]").first).to_be_visible()
    assert page.locator("#attachments").get_by_text("huge.csv").count() == 0
    expect(ask(page, HAM)).to_contain_text("该文本被分类为: 正常信息")


@pytest.mark.registry
def test_nothing_is_kept_of_who_starts_a_new_chat(browser, served):
    def left_behind() -> list[Path]:
        files = (file for file in (served[1] / ".files").rglob("*") if file.is_file())
        return [file for file in files if b"dinner" in file.read_bytes()]

    # Files of other tests may be there: a visit that only lost its connection is kept for five minutes.
    others = left_behind()
    page = visit(browser, served[0])
    upload(page, "private.csv", messages_csv(2000, DOUBTFUL))
    expect(page.get_by_role("progressbar")).to_be_visible()
    page.locator("#new-chat-button").click()
    page.locator("#confirm").click()
    expect(page.get_by_role("button", name="典型垃圾信息")).to_be_visible()
    # What is asked in bulk waits behind the rest of the file, if its classification goes on.
    bulk = httpx.post(f"{served[0]}/api/classify", json={"texts": [HAM, SPAM]}, timeout=PATIENCE_MS / 1000)
    assert bulk.status_code == 200
    expect(ask(page, HAM)).to_contain_text("该文本被分类为: 正常信息")
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while not set(left_behind()) <= set(others) and time.monotonic() < deadline:
        page.wait_for_timeout(100)
    assert set(left_behind()) <= set(others)
    page.context.close()
    assert "Traceback" not in (served[1] / "log.txt").read_text()


@pytest.mark.registry
def test_who_leaves_in_the_middle_disturbs_nobody(browser, served):
    leaving = visit(browser, served[0])
    upload(leaving, "large.csv", messages_csv(2000, DOUBTFUL))
    expect(leaving.get_by_role("progressbar")).to_be_visible()
    leaving.context.close()
    page = visit(browser, served[0])
    expect(ask(page, HAM)).to_contain_text("该文本被分类为: 正常信息")
    page.context.close()
    assert "Traceback" not in (served[1] / "log.txt").read_text()
