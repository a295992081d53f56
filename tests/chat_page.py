"""What a visitor does on the chat's page: open it, ask, drop a file."""

import csv
import io

from playwright.sync_api import Browser, Locator, Page, expect

SPAM = "URGENT! You have won a 1 week FREE membership in our £100,000 prize Jackpot! Txt the word: CLAIM to No: 81010"


HAM = "Hey, are you coming home for dinner tonight? Mum is making noodles."


DESKTOP, PHONE = {"width": 1100, "height": 800}, {"width": 390, "height": 844}


VISITORS = {
    "Chinese desktop": ("zh-CN", DESKTOP),
    "English desktop": ("en-GB", DESKTOP),
    "Chinese phone": ("zh-CN", PHONE),
    "English phone": ("en-US", PHONE),
}


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
