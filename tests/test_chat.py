"""The chat with the shipped adapter in a real browser: what a person sees, in both languages, on desktop and phone."""

import asyncio
import contextlib
import csv
import io
import re
import shutil
import sqlite3
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from chat_page import DOUBTFUL, HAM, PATIENCE_MS, SPAM, VISITORS, ask, either, messages_csv, upload
from playwright.sync_api import Locator, expect
from reading import workbook

from benchmarks.app_server import ChatClient, app_command, environment, running_app
from chat.texts import STARTERS
from text_classifier.classifier import Settings

pytestmark = pytest.mark.registry

# Where the layout is looked at, all visitors are played; where only the language counts, each language and each window
# once; elsewhere a Chinese desktop.
every_visitor = pytest.mark.parametrize("page", VISITORS, indirect=True)
both_languages = pytest.mark.parametrize("page", ["Chinese phone", "English desktop"], indirect=True)

# ---------------------------------------------------------------------------- opening


@every_visitor
def test_opening_says_what_this_is_in_the_browsers_language(page, shipped_adapter):
    opening = page.locator("#welcome-screen")
    expect(opening).to_contain_text(either(page, "输入一条消息，判断它是垃圾信息还是正常信息", "Type a message"))
    expect(opening).to_contain_text("SmolLM2-135M-Instruct + LoRA")
    for share in Settings.load(shipped_adapter).accuracy.values():
        expect(opening).to_contain_text(f"{100 * share:.1f} %")
    expect(opening).to_contain_text(either(page, "存入服务器上的反馈文件", "are stored in a feedback file"))
    for title in STARTERS["spam"]["titles"][page.language]:
        expect(page.get_by_role("button", name=title)).to_be_visible()
    placeholder = either(page, "在此输入您的消息...", "Type your message here...")
    expect(page.locator("#chat-input")).to_have_attribute("placeholder", placeholder)
    page.locator("#readme-button").click()
    expect(page.get_by_text("2012")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "nothing to scroll sideways"
    assert page.outside == []


@pytest.mark.parametrize(
    ("visitor", "said"), [("English desktop", "Classified as {}"), ("Chinese desktop", "· {} ·")], ids=["en", "zh"]
)
def test_starters_are_answered_rightly(visit, served, visitor, said):
    page = visit(served[0], visitor)
    for number, label in enumerate(("spam", "spam", "ham", "ham")):
        if number:
            page.goto(page.address)
        page.locator("#starters button").nth(number).click()
        expect(page.get_by_text(said.format(label))).to_be_visible()
        # Explanations that nobody waits for would pile up, and the next visitor would get none.
        expect(page.locator(".explained-words").first).to_be_visible()
        sent = page.locator('[data-step-type="user_message"]').inner_text()
        assert bool(re.search("[\u4e00-\u9fff]", sent)) == (page.language == "zh"), "in the visitor's language"


# ---------------------------------------------------------------------------- answers


@every_visitor
def test_answer_has_label_number_bar_and_words(page):
    answer = ask(page, SPAM)
    expect(answer).to_contain_text("该文本被分类为: 垃圾信息")
    expect(answer).to_contain_text(either(page, "spam · > 99.9 %", "Classified as spam · > 99.9 %"))
    bar = answer.get_by_role("meter")
    expect(bar).to_be_visible()
    assert float(bar.get_attribute("aria-valuenow")) > 0.999
    words = answer.locator(".explained-words")
    expect(words).to_be_visible()
    assert words.inner_text() == SPAM
    shades = words.locator("span").evaluate_all("words => words.map(word => word.style.background)")
    strengths = [float(re.findall(r"[\d.]+", shade)[3]) for shade in shades]
    assert max(strengths) == pytest.approx(0.65) and min(strengths) < 0.2, "strong words stand out"
    answer = ask(page, HAM)
    expect(answer).to_contain_text("该文本被分类为: 正常信息")
    assert float(answer.get_by_role("meter").get_attribute("aria-valuenow")) < 0.01
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.outside == []


def test_label_comes_before_the_words(page):
    page.evaluate(
        """() => {
            window.seen = [];
            new MutationObserver(() => {
                for (const part of ['[role=meter]', '.explained-words'])
                    if (document.querySelector(part) && !window.seen.includes(part)) window.seen.push(part);
            }).observe(document.body, {childList: true, subtree: true});
        }"""
    )
    expect(ask(page, f"{SPAM} {HAM}").locator(".explained-words")).to_be_visible()
    assert page.evaluate("window.seen") == ["[role=meter]", ".explained-words"]


@both_languages
def test_a_message_in_another_language_is_answered_with_a_doubt(page):
    answer = ask(page, "Mamá, se me rompió el móvil, este es mi número nuevo")
    expect(answer).to_contain_text(either(page, "似乎是另一种语言", "seems to be in another language"))
    expect(answer).to_contain_text(either(page, "只学过英文和中文", "learned only English and Chinese"))
    expect(ask(page, "晚上七点老地方见")).not_to_contain_text(either(page, "另一种语言", "another language"))


@both_languages
def test_long_message_says_what_was_read(page):
    answer = ask(page, "free prize " * 2000)
    expect(answer).to_contain_text(
        either(page, "语言模型只读取了前 512 个词元", "The language model read only the first 512 tokens")
    )
    words = answer.locator(".explained-words")
    expect(words).to_be_visible()
    assert 200 < len(words.inner_text()) < 3000, "only what was read is explained, of 22,000 characters"


@both_languages
def test_the_page_scrolls_to_the_end_of_the_words_that_come_later(page):
    expect(ask(page, f"{HAM} " * 10).locator(".explained-words")).to_be_visible()
    page.wait_for_function(
        """() => document.querySelector('.explained-words').getBoundingClientRect().bottom
            < document.querySelector('#chat-input').getBoundingClientRect().top"""
    )


def luminance(colour: np.ndarray) -> float:
    """Return the relative luminance of an RGB colour (WCAG 2.1)."""
    share = colour / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_follows_the_readers_system_and_words_are_legible(page, theme):
    page.emulate_media(color_scheme=theme)
    page.reload()
    words = ask(page, SPAM).locator(".explained-words span")
    expect(words.first).to_be_visible()
    colours = words.evaluate_all(
        """words => words.map(word => [
            getComputedStyle(word).color,
            getComputedStyle(word).backgroundColor,
            getComputedStyle(document.body).backgroundColor
        ].map(colour => colour.match(/[0-9.]+/g).map(Number)))"""
    )
    assert (sum(colours[0][2]) > 600) == (theme == "light")
    for ink, shade, paper in colours:
        opacity = shade[3] if len(shade) == 4 else 1
        mixed = opacity * np.array(shade[:3]) + (1 - opacity) * np.array(paper[:3])
        low, high = sorted((luminance(np.array(ink[:3])), luminance(mixed)))
        assert (high + 0.05) / (low + 0.05) >= 4.5, "contrast of WCAG AA"


def test_keyboard_is_enough(page):
    def tab_to(target: Locator) -> None:
        expect(target).to_be_visible()
        for _ in range(60):
            if target.evaluate("element => element === document.activeElement"):
                return
            page.keyboard.press("Tab")
        raise AssertionError("not reached with the Tab key")

    tab_to(page.locator("#starters button").nth(2))
    page.keyboard.press("Enter")
    expect(page.get_by_text("该文本被分类为: 正常信息")).to_be_visible()
    tab_to(page.locator("#chat-input"))
    page.keyboard.type(SPAM)
    expect(page.locator("#chat-submit")).to_be_enabled()
    page.keyboard.press("Enter")
    expect(page.get_by_text("该文本被分类为: 垃圾信息")).to_be_visible()
    tab_to(page.get_by_role("button", name="标错了").last)
    tab_to(page.locator("#chat-settings-open-modal"))
    page.keyboard.press("Enter")
    tab_to(page.get_by_role("slider"))
    page.keyboard.press("End")
    tab_to(page.locator("#confirm"))
    page.keyboard.press("Enter")
    expect(ask(page, HAM)).to_contain_text("阈值 99 %")


# ---------------------------------------------------------------------------- bad input


def test_awkward_messages_get_a_polite_answer(page):
    awkward = {
        "\u200b\u200d\u2060": "请输入一段文本以进行分类",
        "🎁👨\u200d👩\u200d👧🎊": "该文本被分类为",
        "nul \x00 bell \x07 escape \x1b[31m": "该文本被分类为",
        "\u202eterces\u202c \u2066hidden\u2069": "该文本被分类为",
        "half a pair \ud83d": "该文本被分类为",
        "x" * 100_001: "最多 100,000 个字符",
        "spam and eggs " * 80_000: "最多 100,000 个字符",
    }
    for text, reply in awkward.items():
        expect(ask(page, text)).to_contain_text(reply)
        expect(ask(page, HAM)).to_contain_text("该文本被分类为: 正常信息")


def test_markup_is_shown_as_text(page):
    attack = "<img src=x onerror=\"document.title='hacked'\"> **win** [now](javascript:alert(1)) <|endoftext|>"
    answer = ask(page, attack)
    expect(answer.locator(".explained-words")).to_have_text(attack)
    expect(page.get_by_text(attack).first).to_be_visible()
    assert page.locator('img[src="x"]').count() == page.locator('a[href^="javascript"]').count() == 0
    upload(page, "<img src=x onerror=alert(1)> **b**.csv", messages_csv(3))
    expect(page.get_by_text("完整结果")).to_be_visible()
    assert "hacked" not in page.title() and page.locator('img[src="x"]').count() == 0


def test_a_burst_of_ten_thousand_messages_leaves_the_chat_alive(served, page):
    async def burst() -> None:
        async with ChatClient(served[0]) as client:
            for number in range(10_000):
                await client.send(f"message {number}")
                if number % 100 == 0:
                    await asyncio.sleep(0)
            # Another visitor is answered while the burst is being processed.
            answer = await asyncio.to_thread(httpx.post, f"{served[0]}/api/classify", json={"texts": SPAM}, timeout=60)
            assert answer.json()["results"][0]["label"] == "spam"
            missing = {"Classified as", "too fast"}
            while missing:
                reply = await client.answer(PATIENCE_MS / 1000)
                missing -= {text for text in missing if text in reply}

    # The burst needs another thread, because Playwright's event loop runs in this one.
    with ThreadPoolExecutor() as thread:
        thread.submit(lambda: asyncio.run(burst())).result()
    expect(ask(page, HAM)).to_contain_text("该文本被分类为: 正常信息")


# ---------------------------------------------------------------------------- feedback and settings


@both_languages
def test_wrong_answers_are_stored_and_can_be_taken_back(page, served):
    def stored() -> list[tuple]:
        with contextlib.closing(sqlite3.connect(served[1] / "feedback.sqlite")) as connection:
            return connection.execute("SELECT text, given_label, right_label FROM feedback").fetchall()

    ask(page, HAM)
    wrong = page.get_by_role("button", name=either(page, "标错了，应为垃圾信息", "Wrong, it is spam"))
    # The page enables its buttons when the answer is complete. Several clicks store one correction.
    expect(wrong).to_be_enabled()
    wrong.evaluate("button => { button.click(); button.click(); button.click(); }")
    undo = page.get_by_role("button", name=either(page, "撤销", "Undo"))
    expect(undo).to_be_visible()
    expect(wrong).to_have_count(0)
    assert stored() == [(HAM, "ham", "spam")]
    undo.click()
    expect(wrong).to_be_visible()
    assert stored() == []


def test_an_error_shows_a_number_and_the_log_the_reason(page, served):
    ask(page, HAM)
    feedback = served[1] / "feedback.sqlite"
    kept = feedback.read_bytes()
    try:
        feedback.write_bytes(b"this is no database any more " * 200)
        page.get_by_role("button", name="标错了").click()
        apology = page.get_by_text("错误信息: 处理失败，请重试")
        expect(apology).to_be_visible()
    finally:
        feedback.write_bytes(kept)
    said = apology.inner_text()
    assert str(served[1]) not in page.content() and "Traceback" not in page.content()
    error_id = re.search(r"\b[0-9a-f]{8}\b", said).group()
    log = (served[1] / "log.txt").read_text()
    assert error_id in log and "not a database" in log
    # Empty the log, because other tests fail on a traceback in it.
    (served[1] / "log.txt").write_text("")


def test_settings_change_threshold_language_and_explanations(visit, served):
    page = visit(served[0], "English desktop")
    page.locator("#chat-settings-open-modal").click()
    slider = page.get_by_role("slider")
    expect(slider).to_have_attribute("aria-valuenow", "50")
    slider.press("Home")
    page.get_by_role("combobox").click()
    page.get_by_role("option", name="中文").click()
    page.get_by_role("switch").click()
    page.locator("#confirm").click()
    borderline = "Claim your free drink at the bar before 9, I'm buying"
    answer = ask(page, borderline)
    expect(answer).to_contain_text("该文本被分类为: 垃圾信息 · spam")
    expect(answer).to_contain_text("阈值 1 %")
    assert float(answer.get_by_role("meter").get_attribute("aria-valuenow")) < 0.5, "the probability is the model's own"
    page.locator("#chat-settings-open-modal").click()
    expect(page.get_by_text("显示各词的影响")).to_be_visible()
    page.get_by_role("switch").click()
    page.locator("#confirm").click()
    # Words are explained in order, so those of the first answer would be there by now.
    expect(ask(page, HAM).locator(".explained-words")).to_be_visible()
    expect(answer.locator(".explained-words")).to_have_count(0)


# ---------------------------------------------------------------------------- files


@every_visitor
def test_file_gives_charts_rows_and_the_whole_result_and_a_text_beside_it_is_answered(page):
    page.locator("#chat-input").fill(HAM)
    upload(page, "messages.csv", messages_csv(60))
    expect(page.get_by_text("该文本被分类为: 正常信息")).to_be_visible()
    expect(page.get_by_text(either(page, "完整结果", "Complete result"))).to_be_visible()
    expect(page.get_by_text(either(page, "垃圾信息: 20 (33.3 %)", "spam: 20 (33.3 %)"))).to_be_visible()
    expect(page.get_by_text(either(page, "前 10 行", "First 10 rows"))).to_be_visible()
    expect(page.get_by_role("row")).to_have_count(11)
    with page.expect_download() as download:
        page.get_by_text("messages_classified.csv").click()
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_bytes().decode("utf-8-sig"), newline="")))
    assert [row["id"] for row in rows] == [str(number) for number in range(60)]
    assert [row["predicted_label"] for row in rows[:2]] == ["spam", "ham"]
    assert rows[2]["message"] == "'=1+1", "a formula that the spreadsheet will not run"
    assert float(rows[0]["spam_probability"]) > 0.99
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@both_languages
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


def test_the_stop_button_of_the_page_works_too_and_speaks_the_language(page):
    ask(page, HAM)
    upload(page, "many.csv", messages_csv(5000, DOUBTFUL))
    expect(page.get_by_role("progressbar")).to_be_visible()
    page.locator("#stop-button").click()
    expect(page.get_by_text("已停止。以下是停止前已完成的部分")).to_be_visible()
    expect(page.get_by_text("已停止。", exact=True)).to_be_visible()
    assert page.get_by_text("Task manually stopped.").count() == 0


@both_languages
def test_sheet_and_text_column_are_asked_for_where_they_are_not_clear(page):
    question = "What do you think about this one?"
    rows = [["left", "right"], [SPAM, question], [HAM, question]]
    upload(page, "book.xlsx", workbook(May=rows, June=rows))
    page.get_by_role("button", name="June").click()
    page.get_by_role("button", name="left").click()
    expect(page.get_by_text(either(page, "垃圾信息: 1 (50.0 %)", "spam: 1 (50.0 %)"))).to_be_visible()
    read = either(page, "读取了工作表 June；没有读取：May。", "The sheet June was read; not read: May.")
    expect(page.get_by_text(read)).to_be_visible()
    assert page.get_by_text("Selected:").count() == 0


@both_languages
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


def test_files_that_cannot_be_used_are_refused_politely(page):
    for name, content, reason in (
        ("fake.xlsx", b"not a workbook", "不是 Excel 工作簿"),
        ("empty.csv", b"", "文件里没有消息。"),
        ("long.txt", b"hello\n" * 10_001, "行数太多：最多 10,000 行"),
        ("program.exe", b"MZ", "不支持这种文件。可以使用：.csv .tsv .txt .jsonl .json .xlsx"),
    ):
        upload(page, name, content)
        expect(page.get_by_text(reason)).to_be_visible()
    huge = {"name": "huge.csv", "mimeType": "", "buffer": b"x" * (10 * 2**20 + 1)}
    page.locator("#upload-button-input").set_input_files(huge)
    expect(page.locator("[data-sonner-toast]").first).to_be_visible()
    assert page.locator("#attachments").get_by_text("huge.csv").count() == 0
    expect(ask(page, HAM)).to_contain_text("该文本被分类为: 正常信息")


def test_nothing_is_kept_of_who_starts_a_new_chat(page, served):
    def left_behind() -> list[Path]:
        files = (file for file in (served[1] / ".files").rglob("*") if file.is_file())
        return [file for file in files if b"dinner" in file.read_bytes()]

    # Files of other tests may be there: a visit that only lost its connection is kept for five minutes.
    others = left_behind()
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
    assert "Traceback" not in (served[1] / "log.txt").read_text()


def test_who_leaves_in_the_middle_disturbs_nobody(visit, served):
    leaving, page = visit(served[0]), visit(served[0])
    upload(leaving, "large.csv", messages_csv(2000, DOUBTFUL))
    expect(leaving.get_by_role("progressbar")).to_be_visible()
    leaving.close()
    expect(ask(page, HAM)).to_contain_text("该文本被分类为: 正常信息")
    assert "Traceback" not in (served[1] / "log.txt").read_text()


# ---------------------------------------------------------------------------- the server


def test_server_refuses_other_sites_and_giant_requests(served):
    address, _ = served
    handshake = f"{address}/ws/socket.io/?EIO=4&transport=polling"
    assert httpx.get(handshake, headers={"Origin": address}).status_code == 200
    assert httpx.get(handshake, headers={"Origin": "http://evil.example"}).status_code == 400
    answer = httpx.get(f"{address}/api/health", headers={"Origin": "http://evil.example"})
    assert "access-control-allow-origin" not in answer.headers
    assert httpx.post(f"{address}/api/classify", content=b" " * (12 * 2**20), timeout=120).status_code == 413
    assert httpx.get(f"{address}/api/health", headers={"Host": "rebound.example"}).status_code == 400
    for path in ("/", "/docs", "/redoc"):
        assert "default-src 'self'" in httpx.get(address + path).headers["content-security-policy"]


def test_uploads_survive_another_server_and_a_taken_address_is_said(served, tiny_review_adapter):
    address, folder = served
    uploads, variables = folder / ".files", {"ADAPTER_DIR": str(tiny_review_adapter)}

    def upload_to(address: str) -> int:
        async def visit_and_upload() -> int:
            async with ChatClient(address) as client:
                session = {"session_id": client.session_id}
                file = {"file": ("messages.csv", b"text\nhello\n", "text/csv")}
                status = httpx.post(f"{address}/project/file", params=session, files=file, timeout=30).status_code
                kept.append(len(list(uploads.glob(f"process-*/{client.session_id}/*"))))
                return status

        # In a thread of its own: Playwright's loop may run in this one.
        with ThreadPoolExecutor() as thread:
            return thread.submit(lambda: asyncio.run(visit_and_upload())).result()

    kept = []
    assert not (uploads / "process-1-0").exists(), "a server that was killed left this"
    assert upload_to(address) == 200 and kept == [1]
    with running_app(folder, **variables) as other:
        assert upload_to(other) == 200
        shutil.rmtree(uploads, ignore_errors=True)  # a server may remove files of a visit meanwhile
        assert not uploads.exists()
        assert upload_to(address) == 200 and kept == [1, 1, 1], "the folder is made anew"
        own = list(uploads.glob("process-*"))
        assert upload_to(other) == 200 and len(list(uploads.glob("process-*"))) == 2
    assert list(uploads.glob("process-*")) == own, "a server that ends removes its own, and nothing else"
    assert upload_to(address) == 200 and kept == [1, 1, 1, 1, 1]
    command = app_command(int(address.rpartition(":")[2]))
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment(**variables))
    assert result.returncode == 1 and "cannot serve at 127.0.0.1" in result.stderr and "--port" in result.stderr
    assert "Traceback" not in result.stderr and upload_to(address) == 200


def test_documentation_of_the_api_works_offline(page, served):
    page.goto(f"{served[0]}/api/docs")
    expect(page.get_by_text("/classify", exact=True)).to_be_visible()
    assert page.outside == []
