"""Other chats: behind a password and a proxy, and what cannot be served, which is said in one line."""

import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from chat_page import ask
from playwright.sync_api import expect
from shared import REPOSITORY

from benchmarks.app_server import app_command, copy_of_app, environment, free_port, running_app
from chat import settings


@pytest.fixture(scope="module")
def review_address(tmp_path_factory, tiny_review_adapter):
    """A running chat with another adapter, without feedback, behind a password and a proxy that serves it at /chat."""
    folder = copy_of_app(tmp_path_factory.mktemp("review_app"))
    variables = {"ADAPTER_DIR": str(tiny_review_adapter), "CHAT_USERNAME": "anna", "CHAT_PASSWORD": "geheim"}
    names = {"CHAT_HOSTS": "chat.example.org, 127.0.0.1"}
    with running_app(folder, "--root-path", "/chat", **variables, **names) as address:
        yield f"{address}/chat"


def test_another_adapter_answers_with_its_own_labels_behind_a_password(visit, review_address):
    page = visit(review_address)
    # Chainlit asks for an e-mail address.
    page.get_by_label("用户名").fill("anna")
    page.locator("#password").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_text("无法登录")).to_be_visible()
    page.locator("#password").fill("geheim")
    page.keyboard.press("Enter")
    opening = page.locator("#welcome-screen")
    expect(opening).to_contain_text("判断它是正面评论还是负面评论")
    expect(opening).to_contain_text("不会保存")
    answer = ask(page, "a wonderful film")
    expect(answer).to_contain_text(re.compile("该文本被分类为: (正面评论 · positive|负面评论 · negative)"))
    expect(page.get_by_role("button", name="标错了")).to_have_count(0)
    expect(page.get_by_text("分类可能出错")).to_be_visible()
    request = {"json": {"texts": "a wonderful film"}, "timeout": 120}
    assert httpx.post(f"{review_address}/api/classify", **request).status_code == 401
    answer = httpx.post(f"{review_address}/api/classify", auth=("anna", "geheim"), **request)
    assert answer.json()["results"][0]["label_zh"] in ("正面评论", "负面评论")


def test_behind_a_proxy_the_page_of_the_outside_name_connects(review_address):
    """Also where the proxy tells neither that it speaks HTTPS nor on which port, and below a path."""

    def status(path: str, **headers: str) -> int:
        return httpx.get(review_address + path, headers={"Host": "chat.example.org"} | headers).status_code

    assert status("/") == status("/public/favicon.svg") == status("/api/health") == 200
    assert status("/", Host="localhost") == 400, "only the names that are set"
    own = ("https://chat.example.org", "https://chat.example.org:8443", "http://chat.example.org")
    other = ("https://evil.example", "https://chat.example.org.evil.example", "http://localhost:3000", "null")
    for origin in own + other:
        expected = 200 if origin in own else 400
        assert status("/ws/socket.io/?EIO=4&transport=polling", Origin=origin) == expected, origin


# ---------------------------------------------------------------------------- what cannot be served


def the_line(printed: str) -> str:
    """Return the one line that a chat has printed which could not start."""
    assert "Traceback" not in printed
    (line,) = (line for line in printed.strip().splitlines() if "Loading weights" not in line)
    return line


@pytest.fixture
def refusal(monkeypatch, capsys):
    """Load the app in this process, as far as it comes: `refusal(adapter, feedback_file)` returns what it prints."""

    def load(adapter: Path, feedback_file: Path | None = None) -> str:
        monkeypatch.setattr(settings, "ADAPTER_DIR", str(adapter))
        monkeypatch.setattr(settings, "FEEDBACK_FILE", feedback_file)
        monkeypatch.setattr("chat.server.keep_own_uploads", lambda: None)
        monkeypatch.setattr(sys, "setswitchinterval", lambda seconds: None)
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(REPOSITORY / "chainlit_gpt_classification.py"))
        assert ended.value.code == 1
        return the_line("".join(capsys.readouterr()))

    return load


def test_missing_adapter_is_said_in_one_line(tmp_path, refusal):
    command = app_command(free_port())
    result = subprocess.run(command, cwd=copy_of_app(tmp_path), capture_output=True, text=True, env=environment())
    assert result.returncode == 1 and "Traceback" not in result.stdout
    assert "找不到 ./lora_model 目录, 请确认模型已正确保存" in the_line(result.stderr)
    assert "找不到 elsewhere 目录" in refusal(Path("elsewhere"))


@pytest.mark.parametrize("damaged", ["adapter_config.json", "adapter_model.safetensors", "config.json", "its base"])
def test_an_adapter_that_cannot_be_loaded_is_said_in_one_line(tmp_path, tiny_review_adapter, refusal, damaged):
    folder = tmp_path / "lora_model"
    shutil.copytree(tiny_review_adapter, folder)
    if damaged == "its base":
        config = folder / "adapter_config.json"
        base = re.search(r'"base_model_name_or_path": "(.*?)"', config.read_text()).group(1)
        config.write_text(config.read_text().replace(base, "/nowhere/gpt2"))
    else:
        (folder / damaged).write_bytes((folder / damaged).read_bytes()[:40])
    assert "错误信息: 无法加载模型" in refusal(folder)


def test_settings_that_cannot_work_are_said_in_one_line(tmp_path, tiny_review_adapter, refusal, monkeypatch):
    monkeypatch.delenv("CHAT_PASSWORD", raising=False)
    assert "FEEDBACK_FILE" in refusal(tiny_review_adapter, tmp_path)
    monkeypatch.setenv("CHAT_USERNAME", "anna")
    assert "CHAT_PASSWORD" in refusal(tiny_review_adapter)
    monkeypatch.setenv("CHAT_PASSWORD", "密码")
    assert "ASCII" in refusal(tiny_review_adapter)
    monkeypatch.delenv("CHAT_USERNAME")
    monkeypatch.setenv("DEVICE", "cuda:7")
    error = refusal(tiny_review_adapter)
    assert "无法加载模型" in error and "DEVICE=cuda:7: this machine has" in error
