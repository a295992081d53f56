"""A visitor's actions on the chat's page: open it, send a message, send a file."""

import csv
import io

from playwright.sync_api import BrowserContext, Locator, Page, expect

# Tests wait for what they wait for, not for a time: a busy machine may take minutes for what takes seconds elsewhere.
PATIENCE_MS = 240_000
expect.set_options(timeout=PATIENCE_MS)

SPAM = "URGENT! You have won a 1 week FREE membership in our £100,000 prize Jackpot! Txt the word: CLAIM to No: 81010"
HAM = "Hey, are you coming home for dinner tonight? Mum is making noodles."
# TF-IDF is not sure of it, so the language model has to read it and a large file takes its time.
DOUBTFUL = "Reply YES to confirm"

DESKTOP, PHONE = {"width": 1100, "height": 800}, {"width": 390, "height": 844}
VISITORS = {
    "Chinese desktop": ("zh-CN", DESKTOP),
    "English desktop": ("en-GB", DESKTOP),
    "Chinese phone": ("zh-CN", PHONE),
    "English phone": ("en-US", PHONE),
}


def new_tab(profile: BrowserContext) -> Page:
    """Open a tab. Only this machine can be reached (see the browser's options).

    `tab.outside` lists the requests that do not begin with `tab.address`, which the chat's own do.
    """
    tab = profile.new_page()
    tab.set_default_timeout(PATIENCE_MS)
    tab.outside = []
    # A route that refuses them would turn the browser's cache off.
    tab.on("request", lambda request: request.url.startswith(tab.address) or tab.outside.append(request.url))
    return tab


def either(page: Page, chinese: str, english: str) -> str:
    """Return the text in the language of the page's visitor."""
    return chinese if page.language == "zh" else english


def connected(page: Page) -> None:
    """Wait until the page is connected, which shows in its settings button: the server sends the settings."""
    expect(page.locator("#chat-settings-open-modal")).to_be_visible()


def ask(page: Page, text: str) -> Locator:
    """Send a message and return its answer as soon as it appears."""
    connected(page)
    answers = page.locator('[data-step-type="assistant_message"]')
    before = answers.count()
    page.locator("#chat-input").fill(text)
    expect(page.locator("#chat-submit")).to_be_enabled()
    page.locator("#chat-input").press("Enter")
    answer = answers.nth(before)
    expect(answer).to_be_visible()
    return answer


def upload(page: Page, name: str, content: bytes) -> None:
    """Send a file."""
    connected(page)
    page.locator("#upload-button-input").set_input_files({"name": name, "mimeType": "", "buffer": content})
    expect(page.get_by_text(name)).to_be_visible()
    expect(page.locator("#chat-submit")).to_be_enabled()
    page.locator("#chat-input").press("Enter")


def messages_csv(count: int, third: str = "=1+1") -> bytes:
    table = io.StringIO()
    rows = [[number, (SPAM, HAM, third)[number % 3]] for number in range(count)]
    csv.writer(table).writerows([["id", "message"], *rows])
    return table.getvalue().encode()
