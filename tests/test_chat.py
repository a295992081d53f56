"""The chat in a real browser, and what it says when it cannot start."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from conftest import REPOSITORY
from playwright.sync_api import Page, expect, sync_playwright

APP = REPOSITORY / "chainlit_gpt_classification.py"
SPAM = "URGENT! You have won a 1 week FREE membership in our £100,000 prize Jackpot! Txt the word: CLAIM to No: 81010"
HAM = "Hey, are you coming home for dinner tonight? Mum is making noodles."


def app_command(port: int) -> list[str]:
    return [sys.executable, "-m", "chainlit", "run", str(APP), "--headless", "--port", str(port)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def copy_of_app(folder: Path) -> Path:
    """Put the app's own files, without an adapter, into an empty folder."""
    shutil.copytree(REPOSITORY / ".chainlit", folder / ".chainlit", ignore=shutil.ignore_patterns("translations"))
    shutil.copy(REPOSITORY / "chainlit.md", folder)
    return folder


@pytest.fixture(scope="module")
def chat_address(tmp_path_factory, shipped_adapter):
    """The address of the chat serving the shipped adapter."""
    folder = copy_of_app(tmp_path_factory.mktemp("app"))
    shutil.copytree(shipped_adapter, folder / "lora_model")
    port = free_port()
    log = (folder / "log.txt").open("w+")
    process = subprocess.Popen(app_command(port), cwd=folder, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            if process.poll() is not None:
                break
            try:
                httpx.get(address, timeout=2)
                break
            except httpx.TransportError:
                time.sleep(0.5)
        assert process.poll() is None, Path(log.name).read_text()
        yield address
    finally:
        process.terminate()
        process.wait(30)
        log.close()


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


@pytest.fixture
def page(browser, chat_address) -> Page:
    page = browser.new_context(locale="zh-CN", viewport={"width": 1100, "height": 700}).new_page()
    # A machine without internet must show the page too: nothing outside this server is answered.
    page.route(lambda url: not url.startswith(chat_address), lambda route: route.abort())
    page.goto(chat_address)
    yield page
    page.context.close()


def ask(page: Page, text: str) -> None:
    page.locator("#chat-input").fill(text)
    expect(page.locator("#chat-submit")).to_be_enabled(timeout=30_000)
    page.keyboard.press("Enter")


@pytest.mark.registry
def test_spam_and_ham_are_told_apart_in_a_browser(page):
    ask(page, SPAM)
    expect(page.get_by_text("该文本被分类为: 垃圾信息 · spam")).to_be_visible(timeout=30_000)
    ask(page, HAM)
    expect(page.get_by_text("该文本被分类为: 正常信息 · ham")).to_be_visible(timeout=30_000)
    if folder := os.environ.get("SCREENSHOT_DIR"):
        page.screenshot(path=Path(folder, "chat.png"))


@pytest.mark.registry
def test_awkward_messages_get_an_answer_and_are_shown_as_text(page):
    ask(page, "<img src=x onerror=\"document.title='hacked'\"> **win** <|endoftext|> \u202e\x07 免费 🎁")
    expect(page.get_by_text("该文本被分类为")).to_be_visible(timeout=30_000)
    expect(page.get_by_text("<img src=x onerror=")).to_be_visible()
    assert "hacked" not in page.title()
    ask(page, "free prize " * 2000)
    expect(page.get_by_text("Only the first 120 tokens were read")).to_be_visible(timeout=30_000)


def run_app_without_success(folder: Path) -> str:
    """Start the app where it cannot serve and return the one line it says, checking its exit code."""
    result = subprocess.run(app_command(free_port()), cwd=folder, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    assert "Traceback" not in result.stdout + result.stderr
    return result.stderr.strip().splitlines()[-1]


def test_missing_adapter_is_said_in_one_line(tmp_path):
    assert "找不到 ./lora_model 目录, 请确认模型已正确保存" in run_app_without_success(copy_of_app(tmp_path))


def test_damaged_adapter_is_said_in_one_line(tmp_path, tiny_gpt2):
    folder = copy_of_app(tmp_path) / "lora_model"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "gpt2"')
    assert "错误信息: 无法加载模型" in run_app_without_success(tmp_path)
