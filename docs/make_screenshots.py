"""Take the screenshots of the chat for the READMEs and docs/: `make screenshots`."""

import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.app_server import copy_of_app, running_app
from benchmarks.common import ADAPTER, REPOSITORY
from chat.texts import starters

CHINESE, ENGLISH = ([text for _, text in starters("spam", language, ["en", "zh"])] for language in ("zh", "en"))


def open_chat(browser: Browser, address: str, locale: str, theme: str, width: int, height: int) -> Page:
    """Open the chat as a visitor with this language, theme and window."""
    page = browser.new_context(
        locale=locale, viewport={"width": width, "height": height}, device_scale_factor=1.5
    ).new_page()
    page.add_init_script(f"localStorage.setItem('vite-ui-theme', '{theme}')")
    page.goto(address)
    page.locator("#chat-settings-open-modal").wait_for()
    return page


def ask(page: Page, text: str, count: int) -> None:
    """Send a message and wait until the `count`-th answer is explained."""
    page.locator("#chat-input").fill(text)
    page.locator("#chat-submit:enabled").wait_for()
    page.locator("#chat-input").press("Enter")
    page.locator(".explained-words").nth(count - 1).wait_for(timeout=60_000)


def main() -> None:
    """Save docs/chat.png, docs/chat_file.png and docs/chat_phone.png."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        copy_of_app(Path(folder))
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        with running_app(Path(folder), ADAPTER_DIR=str(ADAPTER)) as address:
            page = open_chat(browser, address, "zh-CN", "light", 900, 780)
            ask(page, CHINESE[1], 1)
            ask(page, CHINESE[2], 2)
            page.wait_for_timeout(1000)
            page.screenshot(path=REPOSITORY / "docs/chat.png")

            page = open_chat(browser, address, "en-US", "light", 900, 980)
            messages = Path(folder, "messages.csv")
            texts = [*ENGLISH, "See you at seven?"] * 8
            messages.write_text("id,message\n" + "".join(f'{number},"{text}"\n' for number, text in enumerate(texts)))
            page.locator("#upload-button-input").set_input_files(messages)
            page.locator("#chat-submit:enabled").wait_for()
            page.locator("#chat-input").press("Enter")
            page.get_by_text("Complete result").wait_for(timeout=60_000)
            page.wait_for_timeout(1000)
            page.screenshot(path=REPOSITORY / "docs/chat_file.png")

            page = open_chat(browser, address, "en-US", "dark", 390, 760)
            ask(page, ENGLISH[0], 1)
            page.wait_for_timeout(1000)
            page.screenshot(path=REPOSITORY / "docs/chat_phone.png")


if __name__ == "__main__":
    main()
