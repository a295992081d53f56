"""The chat's server answers its own page, refuses other sites, and says in one line why it cannot start."""

import asyncio
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from chat_page import ask, visit
from playwright.sync_api import expect

from benchmarks.app_server import ChatClient, app_command, copy_of_app, environment, free_port, running_app


def test_another_adapter_answers_with_its_own_labels_behind_a_password(browser, review_address):
    page = visit(browser, review_address)
    page.locator("#email").fill("anna")
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
    page.context.close()
    request = {"json": {"texts": "a wonderful film"}, "timeout": 120}
    assert httpx.post(f"{review_address}/api/classify", **request).status_code == 401
    answer = httpx.post(f"{review_address}/api/classify", auth=("anna", "geheim"), **request)
    assert answer.json()["results"][0]["label_zh"] in ("正面评论", "负面评论")


@pytest.mark.registry
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


def test_behind_a_proxy_the_page_of_the_outside_name_connects(tmp_path, tiny_review_adapter):
    """Also where the proxy tells neither that it speaks HTTPS nor on which port, and below a path."""
    folder = copy_of_app(tmp_path)
    variables = {"ADAPTER_DIR": str(tiny_review_adapter), "CHAT_HOSTS": "chat.example.org"}
    with running_app(folder, "--root-path", "/chat", **variables) as address:

        def status(path: str, **headers: str) -> int:
            return httpx.get(address + path, headers={"Host": "chat.example.org"} | headers).status_code

        assert status("/chat/") == status("/chat/public/favicon.svg") == status("/chat/api/health") == 200
        assert status("/chat/", Host="localhost") == 400, "only the names that are set"
        handshake = "/chat/ws/socket.io/?EIO=4&transport=polling"
        for origin in ("https://chat.example.org", "https://chat.example.org:8443", "http://chat.example.org"):
            assert status(handshake, Origin=origin) == 200
        for origin in (
            "https://evil.example",
            "https://chat.example.org.evil.example",
            "http://localhost:3000",
            "null",
        ):
            assert status(handshake, Origin=origin) == 400


@pytest.mark.registry
def test_documentation_of_the_api_works_offline(browser, served):
    page = visit(browser, served[0])
    page.goto(f"{served[0]}/api/docs")
    expect(page.get_by_text("/classify", exact=True)).to_be_visible()
    assert page.outside == []
    page.context.close()


def run_app_without_success(folder: Path, **variables: str) -> str:
    """Start an app that cannot serve, check that its exit code is 1, and return the one line that it prints."""
    result = subprocess.run(
        app_command(free_port()), cwd=folder, capture_output=True, text=True, env=environment(**variables)
    )
    assert result.returncode == 1
    assert "Traceback" not in result.stdout + result.stderr
    said = [line for line in result.stderr.strip().splitlines() if "Loading weights" not in line]
    assert len(said) == 1, said
    return said[0]


def test_uploads_survive_another_server_and_a_taken_address_is_said(tmp_path, tiny_review_adapter):
    folder, variables = copy_of_app(tmp_path), {"ADAPTER_DIR": str(tiny_review_adapter)}

    def upload(address: str) -> int:
        async def visit_and_upload() -> int:
            async with ChatClient(address) as client:
                status = await client.upload("messages.csv", b"text\nhello\n")
                kept.append(len(list((folder / ".files").glob(f"process-*/{client.session_id}/*"))))
                return status

        # In a thread of its own: Playwright's loop may run in this one.
        with ThreadPoolExecutor() as thread:
            return thread.submit(lambda: asyncio.run(visit_and_upload())).result()

    kept = []
    (folder / ".files/process-1-0/visit").mkdir(parents=True)
    with running_app(folder, **variables) as address:
        assert upload(address) == 200 and kept == [1]
        assert not (folder / ".files/process-1-0").exists(), "a server that was killed left this"
        with running_app(folder, **variables) as other:
            assert upload(other) == 200
        assert upload(address) == 200, "the other server has removed only its own"
        shutil.rmtree(folder / ".files")
        assert upload(address) == 200 and kept == [1, 1, 1, 1], "the folder is made anew"
        command = app_command(int(address.rpartition(":")[2]))
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment(**variables))
        assert result.returncode == 1 and "cannot serve at 127.0.0.1" in result.stderr
        assert "Traceback" not in result.stderr and upload(address) == 200
    assert not list((folder / ".files").glob("process-*")), "nothing is left when the server has ended"


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
