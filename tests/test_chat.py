"""The chat in a real browser: what a person sees, in both languages, on a desktop and on a phone."""

import asyncio
import re
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from chat_page import HAM, PATIENCE_MS, SPAM, ask, either, messages_csv, upload, visit
from huggingface_hub import ModelCard
from playwright.sync_api import Locator, expect

from benchmarks.app_server import ChatClient
from chat.texts import STARTERS

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
    for title in STARTERS["spam"]["titles"][page.language]:
        expect(page.get_by_role("button", name=title)).to_be_visible()
    placeholder = either(page, "在此输入您的消息...", "Type your message here...")
    expect(page.locator("#chat-input")).to_have_attribute("placeholder", placeholder)
    page.locator("#readme-button").click()
    expect(page.get_by_text("2012")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "nothing to scroll sideways"
    assert page.outside == []


@pytest.mark.registry
def test_starters_are_answered_rightly(browser, served):
    said = {"en-GB": "Classified as {}", "zh-CN": "· {} ·"}
    for locale, answer in said.items():
        for number, label in enumerate(("spam", "spam", "ham", "ham")):
            page = visit(browser, served[0], locale)
            page.locator("#starters button").nth(number).click()
            expect(page.get_by_text(answer.format(label))).to_be_visible()
            # Explanations that nobody waits for would pile up, and the next visitor would get none.
            expect(page.locator(".explained-words").first).to_be_visible()
            sent = page.locator('[data-step-type="user_message"]').inner_text()
            assert bool(re.search("[\u4e00-\u9fff]", sent)) == (locale == "zh-CN"), "in the visitor's language"
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
    expect(ask(page, f"{SPAM} {HAM}").locator(".explained-words")).to_be_visible()
    assert page.evaluate("window.seen") == ["[role=meter]", ".explained-words"]


@pytest.mark.registry
def test_a_message_in_another_language_is_answered_with_a_doubt(page):
    answer = ask(page, "Mamá, se me rompió el móvil, este es mi número nuevo")
    expect(answer).to_contain_text(either(page, "似乎是另一种语言", "seems to be in another language"))
    expect(answer).to_contain_text(either(page, "只学过英文和中文", "learned English and Chinese"))
    expect(ask(page, "晚上七点老地方见")).not_to_contain_text(either(page, "另一种语言", "another language"))


@pytest.mark.registry
def test_long_message_says_what_was_read(page):
    answer = ask(page, "free prize " * 2000)
    expect(answer).to_contain_text(
        either(page, "语言模型只读取了前 512 个词元", "The language model read only the first 512 tokens")
    )
    words = answer.locator(".explained-words")
    expect(words).to_be_visible()
    assert 200 < len(words.inner_text()) < 3000, "only what was read is explained, of 22,000 characters"


@pytest.mark.registry
def test_the_page_scrolls_to_the_end_of_the_words_that_come_later(page):
    expect(ask(page, f"{HAM} " * 10).locator(".explained-words")).to_be_visible()
    page.wait_for_function(
        """() => document.querySelector('.explained-words').getBoundingClientRect().bottom
            < document.querySelector('#chat-input').getBoundingClientRect().top"""
    )


def contrast(one: list[float], other: list[float]) -> float:
    """Return the contrast ratio of two RGB colours (WCAG 2.1)."""

    def luminance(colour: list[float]) -> float:
        shares = [value / 255 for value in colour]
        linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.registry
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_follows_the_readers_system_and_words_are_legible(browser, served, theme):
    page = visit(browser, served[0])
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
        mixed = [opacity * top + (1 - opacity) * below for top, below in zip(shade[:3], paper[:3], strict=True)]
        assert contrast(ink[:3], mixed) >= 4.5, "WCAG AA"
    page.context.close()


@pytest.mark.registry
def test_keyboard_is_enough(chinese_page):
    page = chinese_page

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
    expect(answer.locator(".explained-words")).to_have_text(attack)
    expect(page.get_by_text(attack).first).to_be_visible()
    assert page.locator('img[src="x"]').count() == page.locator('a[href^="javascript"]').count() == 0
    upload(page, "<img src=x onerror=alert(1)> **b**.csv", messages_csv(3))
    expect(page.get_by_text("完整结果")).to_be_visible()
    assert "hacked" not in page.title() and page.locator('img[src="x"]').count() == 0


@pytest.mark.registry
def test_a_burst_of_ten_thousand_messages_leaves_the_chat_alive(served, chinese_page):
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
    expect(ask(chinese_page, HAM)).to_contain_text("该文本被分类为: 正常信息")


# ---------------------------------------------------------------------------- feedback and settings


@pytest.mark.registry
def test_wrong_answers_are_stored_and_can_be_taken_back(page, served):
    def stored() -> list[tuple]:
        connection = sqlite3.connect(served[1] / "feedback.sqlite")
        rows = connection.execute("SELECT text, given_label, right_label FROM feedback").fetchall()
        connection.close()
        return rows

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
    # Empty the log, because other tests fail on a traceback in it.
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
    page.context.close()
