"""The chat in a real browser: what a person sees, in both languages, on a desktop and on a phone."""

import asyncio
import csv
import io
import os
import re
import shutil
import sqlite3
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openpyxl
import pytest
from huggingface_hub import ModelCard
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from benchmarks.app_server import ChatClient, app_command, copy_of_app, environment, free_port, running_app
from chat.texts import STARTERS

SPAM = "URGENT! You have won a 1 week FREE membership in our £100,000 prize Jackpot! Txt the word: CLAIM to No: 81010"
HAM = "Hey, are you coming home for dinner tonight? Mum is making noodles."

DESKTOP, PHONE = {"width": 1100, "height": 800}, {"width": 390, "height": 844}
VISITORS = {
    "Chinese desktop": ("zh-CN", DESKTOP),
    "English desktop": ("en-GB", DESKTOP),
    "Chinese phone": ("zh-CN", PHONE),
    "English phone": ("en-US", PHONE),
}


@pytest.fixture(scope="module")
def served(tmp_path_factory, shipped_adapter):
    """The chat serving the shipped adapter, with feedback: its address and folder."""
    folder = copy_of_app(tmp_path_factory.mktemp("app"))
    shutil.copytree(shipped_adapter, folder / "lora_model")
    with running_app(folder, FEEDBACK_FILE="feedback.sqlite") as address:
        yield address, folder


@pytest.fixture(scope="module")
def review_address(tmp_path_factory, tiny_review_adapter):
    """The address of the chat serving another adapter, without feedback, behind a password."""
    folder = copy_of_app(tmp_path_factory.mktemp("review_app"))
    variables = {"ADAPTER_DIR": str(tiny_review_adapter), "CHAT_USERNAME": "anna", "CHAT_PASSWORD": "geheim"}
    with running_app(folder, **variables) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium on this machine: apt-get install chromium")
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=quiet)
        yield browser
        browser.close()


def visit(browser: Browser, address: str, locale: str = "zh-CN", viewport: dict = DESKTOP) -> Page:
    """Open the chat; whatever the page asks of other servers is noted in `page.outside` and not answered."""
    page = browser.new_context(locale=locale, viewport=viewport).new_page()
    page.outside = []

    def refuse(route) -> None:
        page.outside.append(route.request.url)
        route.abort()

    page.route(lambda url: not url.startswith(address), refuse)
    page.goto(address)
    return page


@pytest.fixture(params=VISITORS)
def page(request, browser, served) -> Page:
    locale, viewport = VISITORS[request.param]
    page = visit(browser, served[0], locale, viewport)
    page.tongue = locale[:2]
    yield page
    page.context.close()


@pytest.fixture
def chinese_page(browser, served) -> Page:
    page = visit(browser, served[0])
    yield page
    page.context.close()


def either(page: Page, chinese: str, english: str) -> str:
    """Return what the page should say in its visitor's language."""
    return chinese if page.tongue == "zh" else english


def connected(page: Page) -> None:
    """Wait until the server has greeted the page: the settings come from there."""
    expect(page.locator("#chat-settings-open-modal")).to_be_visible(timeout=30_000)


def ask(page: Page, text: str) -> Locator:
    """Send a message and return the answer once it is there."""
    connected(page)
    answers = page.locator('[data-step-type="assistant_message"]')
    before = answers.count()
    page.locator("#chat-input").fill(text)
    expect(page.locator("#chat-submit")).to_be_enabled(timeout=30_000)
    page.locator("#chat-input").press("Enter")
    answer = answers.nth(before)
    expect(answer).to_be_visible(timeout=30_000)
    return answer


def upload(page: Page, name: str, content: bytes) -> None:
    """Send a file."""
    connected(page)
    page.locator("#upload-button-input").set_input_files({"name": name, "mimeType": "", "buffer": content})
    expect(page.get_by_text(name)).to_be_visible()
    expect(page.locator("#chat-submit")).to_be_enabled(timeout=30_000)
    page.locator("#chat-input").press("Enter")


def messages_csv(count: int) -> bytes:
    table = io.StringIO()
    rows = [[number, (SPAM, HAM, "=1+1")[number % 3]] for number in range(count)]
    csv.writer(table).writerows([["id", "message"], *rows])
    return table.getvalue().encode()


# ---------------------------------------------------------------------------- opening


@pytest.mark.registry
def test_opening_says_what_this_is_in_the_browsers_language(page, shipped_adapter):
    opening = page.locator("#welcome-screen")
    card = ModelCard.load(shipped_adapter / "README.md").data
    figures = {result.metric_type: result.metric_value for result in card.eval_results}
    expect(opening).to_contain_text(either(page, "输入一条消息，判断它是垃圾信息还是正常信息", "Type a message"))
    expect(opening).to_contain_text("SmolLM2-135M-Instruct + LoRA")
    expect(opening).to_contain_text(f"{100 * figures['accuracy']:.1f} %")
    expect(opening).to_contain_text(either(page, "存入服务器上的反馈文件", "are stored in a feedback file"))
    for title, _ in STARTERS["spam"]:
        expect(page.get_by_role("button", name=title[page.tongue])).to_be_visible()
    placeholder = either(page, "在此输入您的消息...", "Type your message here...")
    expect(page.locator("#chat-input")).to_have_attribute("placeholder", placeholder)
    page.locator("#readme-button").click()
    expect(page.get_by_text("2012")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "nothing to scroll sideways"
    assert page.outside == []


@pytest.mark.registry
def test_starters_are_answered_rightly(browser, served):
    for number, label in enumerate(("spam", "spam", "ham", "ham")):
        page = visit(browser, served[0], "en-GB")
        page.locator("#starters button").nth(number).click()
        expect(page.get_by_text(f"Classified as {label}")).to_be_visible(timeout=30_000)
        page.context.close()


# ---------------------------------------------------------------------------- answers


@pytest.mark.registry
def test_answer_has_label_number_bar_and_words(page):
    answer = ask(page, SPAM)
    expect(answer).to_contain_text("该文本被分类为: 垃圾信息")
    expect(answer).to_contain_text(either(page, "spam · > 99.9 %", "Classified as spam · > 99.9 %"))
    bar = answer.get_by_role("meter")
    expect(bar).to_be_visible()
    assert float(bar.get_attribute("aria-valuenow")) > 0.999
    words = answer.locator(".explained-words")
    expect(words).to_be_visible(timeout=30_000)
    assert words.inner_text() == SPAM
    shades = words.locator("span").evaluate_all("words => words.map(word => word.style.background)")
    strengths = [float(re.findall(r"[\d.]+", shade)[3]) for shade in shades]
    assert max(strengths) == pytest.approx(0.65) and min(strengths) < 0.2, "strong words stand out"
    answer = ask(page, HAM)
    expect(answer).to_contain_text("该文本被分类为: 正常信息")
    assert float(answer.get_by_role("meter").get_attribute("aria-valuenow")) < 0.01
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.outside == []


@pytest.mark.registry
def test_label_comes_before_the_words(chinese_page):
    page = chinese_page
    page.evaluate(
        """() => {
            window.seen = [];
            new MutationObserver(() => {
                for (const part of ['[role=meter]', '.explained-words'])
                    if (document.querySelector(part) && !window.seen.includes(part)) window.seen.push(part);
            }).observe(document.body, {childList: true, subtree: true});
        }"""
    )
    expect(ask(page, f"{SPAM} {HAM}").locator(".explained-words")).to_be_visible(timeout=30_000)
    assert page.evaluate("window.seen") == ["[role=meter]", ".explained-words"]


@pytest.mark.registry
def test_long_message_says_what_was_read(page):
    answer = ask(page, "free prize " * 2000)
    expect(answer).to_contain_text(
        either(page, "语言模型只读取了前 120 个词元", "The language model read only the first 120 tokens")
    )
    words = answer.locator(".explained-words")
    expect(words).to_be_visible(timeout=60_000)
    assert 200 < len(words.inner_text()) < 2000, "only what was read is explained"


def contrast(one: list[float], other: list[float]) -> float:
    """Return the contrast of two RGB colours (WCAG 2.1)."""

    def luminance(colour: list[float]) -> float:
        shares = [value / 255 for value in colour]
        linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.registry
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_are_legible_in_both_themes(browser, served, theme):
    page = visit(browser, served[0])
    page.evaluate("theme => localStorage.setItem('vite-ui-theme', theme)", theme)
    page.reload()
    words = ask(page, SPAM).locator(".explained-words span")
    expect(words.first).to_be_visible(timeout=30_000)
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
        mixed = [opacity * top + (1 - opacity) * below for top, below in zip(shade[:3], paper[:3], strict=True)]
        assert contrast(ink[:3], mixed) >= 4.5, "WCAG AA"
    page.context.close()


@pytest.mark.registry
def test_keyboard_is_enough(chinese_page):
    page = chinese_page

    def tab_to(target: Locator) -> None:
        expect(target).to_be_visible(timeout=30_000)
        for _ in range(60):
            if target.evaluate("element => element === document.activeElement"):
                return
            page.keyboard.press("Tab")
        raise AssertionError("not reached with the Tab key")

    tab_to(page.locator("#starters button").nth(2))
    page.keyboard.press("Enter")
    expect(page.get_by_text("该文本被分类为: 正常信息")).to_be_visible(timeout=30_000)
    tab_to(page.locator("#chat-input"))
    page.keyboard.type(SPAM)
    expect(page.locator("#chat-submit")).to_be_enabled()
    page.keyboard.press("Enter")
    expect(page.get_by_text("该文本被分类为: 垃圾信息")).to_be_visible(timeout=30_000)
    tab_to(page.get_by_role("button", name="标错了").last)
    tab_to(page.locator("#chat-settings-open-modal"))
    page.keyboard.press("Enter")
    tab_to(page.get_by_role("slider"))
    page.keyboard.press("End")
    tab_to(page.locator("#confirm"))
    page.keyboard.press("Enter")
    expect(ask(page, HAM)).to_contain_text("阈值 99 %")


# ---------------------------------------------------------------------------- bad input


@pytest.mark.registry
@pytest.mark.parametrize(
    ("text", "reply"),
    [
        ("\u200b\u200d\u2060", "请输入一段文本以进行分类"),
        ("🎁👨\u200d👩\u200d👧🎊", "该文本被分类为"),
        ("nul \x00 bell \x07 escape \x1b[31m", "该文本被分类为"),
        ("\u202eterces\u202c \u2066hidden\u2069", "该文本被分类为"),
        ("half a pair \ud83d", "该文本被分类为"),
        ("x" * 100_001, "最多 100,000 个字符"),
        ("spam and eggs " * 80_000, "最多 100,000 个字符"),
    ],
    ids=["invisible", "emoji", "control", "right-to-left", "surrogate", "100 kB", "1 MB"],
)
def test_awkward_messages_get_a_polite_answer(chinese_page, text, reply):
    expect(ask(chinese_page, text)).to_contain_text(reply)
    expect(ask(chinese_page, HAM)).to_contain_text("该文本被分类为: 正常信息")


@pytest.mark.registry
def test_markup_is_shown_as_text(chinese_page):
    page = chinese_page
    attack = "<img src=x onerror=\"document.title='hacked'\"> **win** [now](javascript:alert(1)) <|endoftext|>"
    answer = ask(page, attack)
    expect(answer.locator(".explained-words")).to_have_text(attack, timeout=30_000)
    expect(page.get_by_text(attack).first).to_be_visible()
    assert page.locator('img[src="x"]').count() == page.locator('a[href^="javascript"]').count() == 0
    upload(page, "<img src=x onerror=alert(1)> **b**.csv", messages_csv(3))
    expect(page.get_by_text("完整结果")).to_be_visible(timeout=30_000)
    assert "hacked" not in page.title() and page.locator('img[src="x"]').count() == 0


@pytest.mark.registry
def test_a_burst_of_ten_thousand_messages_leaves_the_chat_alive(served, chinese_page):
    async def burst() -> None:
        async with ChatClient(served[0]) as client:
            for number in range(10_000):
                await client.send(f"message {number}")
                if number % 100 == 0:
                    await asyncio.sleep(0)
            # Somebody else, while the burst is being worked off.
            answer = await asyncio.to_thread(httpx.post, f"{served[0]}/api/classify", json={"texts": SPAM}, timeout=10)
            assert answer.json()["results"][0]["label"] == "spam"
            missing = {"Classified as", "too fast"}
            while missing:
                reply = await asyncio.wait_for(client.answers.get(), 60)
                missing -= {text for text in missing if text in reply}

    # In a thread of its own: Playwright's loop runs in this one.
    with ThreadPoolExecutor() as thread:
        thread.submit(lambda: asyncio.run(burst())).result()
    expect(ask(chinese_page, HAM)).to_contain_text("该文本被分类为: 正常信息")


@pytest.mark.registry
def test_nothing_is_kept_of_who_starts_a_new_chat(browser, served):
    def left_behind() -> list[Path]:
        files = (file for file in (served[1] / ".files").rglob("*") if file.is_file())
        return [file for file in files if b"dinner" in file.read_bytes()]

    # Visits that have only lost their connection are kept for five minutes.
    others = left_behind()
    page = visit(browser, served[0])
    upload(page, "private.csv", messages_csv(500))
    expect(page.get_by_role("progressbar")).to_be_visible(timeout=30_000)
    page.locator("#new-chat-button").click()
    page.locator("#confirm").click()
    expect(page.get_by_role("button", name="典型垃圾信息")).to_be_visible()
    # Longer than the rest of the file would take if it went on.
    page.wait_for_timeout(15_000)
    expect(ask(page, HAM)).to_contain_text("该文本被分类为: 正常信息")
    assert set(left_behind()) <= set(others)
    page.context.close()
    assert "Traceback" not in (served[1] / "log.txt").read_text()


@pytest.mark.registry
def test_who_leaves_in_the_middle_disturbs_nobody(browser, served):
    leaving = visit(browser, served[0])
    upload(leaving, "large.csv", messages_csv(2000))
    expect(leaving.get_by_role("progressbar")).to_be_visible(timeout=30_000)
    leaving.context.close()
    page = visit(browser, served[0])
    expect(ask(page, HAM)).to_contain_text("该文本被分类为: 正常信息")
    page.context.close()
    assert "Traceback" not in (served[1] / "log.txt").read_text()


# ---------------------------------------------------------------------------- files


@pytest.mark.registry
def test_file_gives_charts_rows_and_the_whole_result(page):
    upload(page, "messages.csv", messages_csv(60))
    expect(page.get_by_text(either(page, "完整结果", "Complete result"))).to_be_visible(timeout=60_000)
    labels = {"zh": ["垃圾信息: 20 (33.3 %)", "前 10 行"], "en": ["spam: 20 (33.3 %)", "First 10 rows"]}
    for text in labels[page.tongue]:
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
def test_five_thousand_messages_can_be_stopped_and_what_is_done_is_kept(page):
    upload(page, "many.csv", messages_csv(5000))
    progress = page.get_by_role("progressbar")
    expect(progress).to_be_visible(timeout=30_000)
    expect(progress).not_to_have_attribute("aria-valuenow", "0", timeout=30_000)
    page.get_by_role("button", name=either(page, "停止", "Stop"), exact=True).click()
    said = either(page, "已停止。以下是停止前已完成的部分", "This is what was done until then")
    expect(page.get_by_text(said)).to_be_visible(timeout=30_000)
    expect(page.get_by_text(re.compile(either(page, "未分类: [1-9]", "not classified: [1-9]")))).to_be_visible()
    expect(page.get_by_text("many_classified.csv")).to_be_visible()
    expect(ask(page, HAM)).to_contain_text("正常信息")


@pytest.mark.registry
def test_the_stop_button_of_the_page_works_too_and_speaks_the_language(chinese_page):
    page = chinese_page
    ask(page, HAM)
    upload(page, "many.csv", messages_csv(5000))
    expect(page.get_by_role("progressbar")).to_be_visible(timeout=30_000)
    page.locator("#stop-button").click()
    expect(page.get_by_text("已停止。以下是停止前已完成的部分")).to_be_visible(timeout=30_000)
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
    page.get_by_role("button", name="left").click(timeout=30_000)
    expect(page.get_by_text(either(page, "垃圾信息: 1 (50.0 %)", "spam: 1 (50.0 %)"))).to_be_visible(timeout=30_000)
    assert page.get_by_text("Selected:").count() == 0


@pytest.mark.registry
def test_files_that_cannot_be_used_are_refused_politely(chinese_page):
    page = chinese_page
    upload(page, "fake.xlsx", b"not a workbook")
    expect(page.get_by_text("不是 Excel 工作簿")).to_be_visible(timeout=30_000)
    upload(page, "picture.csv", b"\x89PNG\r\n\x1a\n\x00\x00")
    expect(page.get_by_text("这个文件不是文本")).to_be_visible(timeout=30_000)
    upload(page, "long.txt", b"hello\n" * 10_001)
    expect(page.get_by_text("行数太多：最多 10,000 行")).to_be_visible(timeout=30_000)
    for name, content in (("program.exe", b"MZ"), ("huge.csv", b"x" * (10 * 2**20 + 1))):
        page.locator("#upload-button-input").set_input_files({"name": name, "mimeType": "", "buffer": content})
        expect(page.locator("[data-sonner-toast]").first).to_be_visible()
        assert page.locator("#attachments").get_by_text(name).count() == 0
    expect(ask(page, HAM)).to_contain_text("该文本被分类为: 正常信息")


# ---------------------------------------------------------------------------- feedback, settings, other adapters


@pytest.mark.registry
def test_wrong_answers_are_stored_and_can_be_taken_back(page, served):
    def stored() -> list[tuple]:
        connection = sqlite3.connect(served[1] / "feedback.sqlite")
        rows = connection.execute("SELECT text, given_label, right_label FROM feedback").fetchall()
        connection.close()
        return rows

    ask(page, HAM)
    wrong = page.get_by_role("button", name=either(page, "标错了，应为垃圾信息", "Wrong, it is spam"))
    # However often it is clicked.
    wrong.evaluate("button => { button.click(); button.click(); button.click(); }")
    undo = page.get_by_role("button", name=either(page, "撤销", "Undo"))
    expect(undo).to_be_visible()
    expect(wrong).to_have_count(0)
    assert stored() == [(HAM, "ham", "spam")]
    undo.click()
    expect(wrong).to_be_visible()
    assert stored() == []


@pytest.mark.registry
def test_an_error_shows_a_number_and_the_log_the_reason(browser, served):
    page = visit(browser, served[0])
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
    # Other tests look for tracebacks that are not asked for.
    (served[1] / "log.txt").write_text("")
    page.context.close()


@pytest.mark.registry
def test_settings_change_threshold_language_and_explanations(browser, served):
    page = visit(browser, served[0], "en-GB")
    page.locator("#chat-settings-open-modal").click()
    slider = page.get_by_role("slider")
    expect(slider).to_have_attribute("aria-valuenow", "50")
    slider.press("Home")
    page.get_by_role("combobox").click()
    page.get_by_role("option", name="中文").click()
    page.get_by_role("switch").click()
    page.locator("#confirm").click()
    borderline = "Text me when you are free"
    answer = ask(page, borderline)
    expect(answer).to_contain_text("该文本被分类为: 垃圾信息 · spam")
    expect(answer).to_contain_text("阈值 1 %")
    assert float(answer.get_by_role("meter").get_attribute("aria-valuenow")) < 0.5, "the probability is the model's own"
    page.wait_for_timeout(1500)
    expect(answer.locator(".explained-words")).to_have_count(0)
    page.locator("#chat-settings-open-modal").click()
    expect(page.get_by_text("显示各词的影响")).to_be_visible()
    page.context.close()


def test_another_adapter_answers_with_its_own_labels_behind_a_password(browser, review_address):
    page = visit(browser, review_address)
    page.locator("#email").fill("anna")
    page.locator("#password").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_text("无法登录")).to_be_visible()
    page.locator("#password").fill("geheim")
    page.keyboard.press("Enter")
    opening = page.locator("#welcome-screen")
    expect(opening).to_contain_text("判断它是正面评论还是负面评论", timeout=30_000)
    expect(opening).to_contain_text("不会保存")
    answer = ask(page, "a wonderful film")
    expect(answer).to_contain_text(re.compile("该文本被分类为: (正面评论 · positive|负面评论 · negative)"))
    expect(page.get_by_role("button", name="标错了")).to_have_count(0)
    page.context.close()
    request = {"json": {"texts": "a wonderful film"}, "timeout": 30}
    assert httpx.post(f"{review_address}/api/classify", **request).status_code == 401
    answer = httpx.post(f"{review_address}/api/classify", auth=("anna", "geheim"), **request)
    assert answer.json()["results"][0]["label_zh"] in ("正面评论", "负面评论")


# ---------------------------------------------------------------------------- the server


@pytest.mark.registry
def test_server_refuses_other_sites_and_giant_requests(served):
    address, _ = served
    handshake = f"{address}/ws/socket.io/?EIO=4&transport=polling"
    assert httpx.get(handshake, headers={"Origin": address}).status_code == 200
    assert httpx.get(handshake, headers={"Origin": "http://evil.example"}).status_code == 400
    answer = httpx.get(f"{address}/api/health", headers={"Origin": "http://evil.example"})
    assert "access-control-allow-origin" not in answer.headers
    assert httpx.post(f"{address}/api/classify", content=b" " * (12 * 2**20), timeout=60).status_code == 413
    assert httpx.get(f"{address}/api/health", headers={"Host": "rebound.example"}).status_code == 400
    for path in ("/", "/docs", "/redoc"):
        assert "default-src 'self'" in httpx.get(address + path).headers["content-security-policy"]


@pytest.mark.registry
def test_documentation_of_the_api_works_offline(browser, served):
    page = visit(browser, served[0])
    page.goto(f"{served[0]}/api/docs")
    expect(page.get_by_text("/classify", exact=True)).to_be_visible(timeout=30_000)
    assert page.outside == []
    page.context.close()


def run_app_without_success(folder: Path, **variables: str) -> str:
    """Start the app where it cannot serve and return the one line it says, checking its exit code."""
    result = subprocess.run(
        app_command(free_port()), cwd=folder, capture_output=True, text=True, timeout=120, env=environment(**variables)
    )
    assert result.returncode == 1
    assert "Traceback" not in result.stdout + result.stderr
    said = [line for line in result.stderr.strip().splitlines() if "Loading weights" not in line]
    assert len(said) == 1, said
    return said[0]


def test_missing_adapter_is_said_in_one_line(tmp_path):
    folder = copy_of_app(tmp_path)
    assert "找不到 ./lora_model 目录, 请确认模型已正确保存" in run_app_without_success(folder)
    assert "找不到 elsewhere 目录" in run_app_without_success(folder, ADAPTER_DIR="elsewhere")


@pytest.mark.parametrize("damaged", ["adapter_config.json", "adapter_model.safetensors", "config.json"])
def test_damaged_adapter_is_said_in_one_line(tmp_path, tiny_review_adapter, damaged):
    folder = copy_of_app(tmp_path)
    shutil.copytree(tiny_review_adapter, folder / "lora_model")
    file = folder / "lora_model" / damaged
    file.write_bytes(file.read_bytes()[:40])
    assert "错误信息: 无法加载模型" in run_app_without_success(folder)


def test_adapter_without_its_base_is_said_in_one_line(tmp_path, tiny_review_adapter):
    folder = copy_of_app(tmp_path)
    shutil.copytree(tiny_review_adapter, folder / "lora_model")
    config = folder / "lora_model" / "adapter_config.json"
    base = re.search(r'"base_model_name_or_path": "(.*?)"', config.read_text()).group(1)
    config.write_text(config.read_text().replace(base, "/nowhere/gpt2"))
    assert "错误信息: 无法加载模型" in run_app_without_success(folder)


def test_settings_that_cannot_work_are_said_in_one_line(tmp_path, tiny_review_adapter):
    folder = copy_of_app(tmp_path)
    adapter = {"ADAPTER_DIR": str(tiny_review_adapter)}
    assert "CHAT_PASSWORD" in run_app_without_success(folder, CHAT_USERNAME="anna", **adapter)
    named = {"CHAT_USERNAME": "anna", "CHAT_PASSWORD": "密码"}
    assert "ASCII" in run_app_without_success(folder, **named, **adapter)
    assert "FEEDBACK_FILE" in run_app_without_success(folder, FEEDBACK_FILE=str(tmp_path), **adapter)
