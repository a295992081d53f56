"""Measure what survives kills at random moments, random inputs, and many visitors with a restart.

python -m benchmarks.robustness                       # all parts, up to an hour on two CPU cores
python -m benchmarks.robustness --parts api reader    # some of them

A tiny model with random weights stands in for the real one: the code around it is the same, and a run takes seconds.
Everything happens in a folder of its own and on 127.0.0.1. The exit code is 1 if anything failed.
"""

import argparse
import asyncio
import contextlib
import csv
import functools
import json
import os
import random
import resource
import shutil
import signal
import string
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pandas as pd
import psutil
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks.app_server import ChatClient, copy_of_app, free_port, running_app
from benchmarks.common import REPOSITORY, publish
from chat.settings import FILE_LIMITS
from text_classifier.classifier import Classifier
from text_classifier.extras.pretraining import train_tokenizer
from text_classifier.files import file_sha256
from text_classifier.metrics import markdown_table
from text_classifier.reading.messages import read_messages
from text_classifier.reading.notes import TableError
from text_classifier.runtime import fast_dtype
from text_classifier.text import is_empty, replace_half_surrogates
from text_classifier.training.data import MADE_UP_MESSAGES, read_tsv
from text_classifier.training.runs import complete_checkpoints

MODERN = MADE_UP_MESSAGES["modern"]
# What the chat answers with: a label, an error.
LABELLED, ERROR = "该文本被分类为", "错误信息"


@dataclass
class Trial:
    """What a part works with: its folder, random numbers, the options, a tiny adapter; and what failed."""

    folder: Path
    draw: random.Random
    options: argparse.Namespace
    failed: list[str] = field(default_factory=list)

    def check(self, holds: bool, otherwise: str) -> None:
        """Note what failed, if something does not hold."""
        if not holds:
            self.failed.append(otherwise)

    def finish(self, command: list[str], name: str) -> float:
        """Run a command, which must succeed, and return its seconds."""
        started = time.perf_counter()
        complaint = complaint_of(start(command))
        self.check(not complaint, f"{name}: {complaint[-300:]}")
        return time.perf_counter() - started

    @functools.cached_property
    def base(self) -> Path:
        """The folder of a tiny GPT-2 with random weights and a tokenizer of the messages, like a base model."""
        folder = self.folder / "base"
        tokenizer = train_tokenizer(read_tsv(MODERN)["Text"].tolist(), 1000)
        tokenizer.save_pretrained(folder)
        torch.manual_seed(0)
        ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
        size = {"n_positions": 128, "n_embd": 32, "n_layer": 2, "n_head": 2}
        GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **size, **ends)).save_pretrained(folder)
        return folder

    @functools.cached_property
    def adapter(self) -> Path:
        """The folder of an adapter of that base."""
        self.finish(self.train(self.folder / "adapter", 1), "the adapter")
        return self.folder / "adapter" / "model"

    def train(self, work: Path, seed: int, *more: str) -> list[str]:
        """Return a command that trains in `work` within seconds."""
        flags = f"""--model_name_or_path {self.base} --fallback_model none --seed {seed}
            --data_file {MODERN} --output_dir {work}/results
            --adapter_dir {work}/model --dataset_dir {work}/dataset
            --num_train_epochs 2 --eval_steps 30 --save_steps 10 --save_total_limit 3 --bf16 false
            --disable_tqdm true"""
        return [sys.executable, str(REPOSITORY / "gpt_classification_model.py"), *flags.split(), *more]

    def score(self, source: Path, target: Path) -> list[str]:
        """Return a command that scores a file."""
        words = ["-m", "text_classifier", source, "--output", target, "--adapter_dir", self.adapter]
        return [sys.executable, *map(str, words)]

    @contextlib.contextmanager
    def serve(self, port: int | None = None) -> Iterator[str]:
        """Serve the adapter by the chat and yield its address; afterwards check its log."""
        if not (self.folder / ".chainlit").exists():
            copy_of_app(self.folder)
        with running_app(self.folder, port=port, ADAPTER_DIR=str(self.adapter)) as address:
            yield address
        self.check("Traceback" not in (self.folder / "log.txt").read_text(), "a traceback in the server's log")


def start(command: list[str]) -> subprocess.Popen:
    """Start a command on one thread, so that equal runs give equal bytes; what it says goes to nobody."""
    own = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(command, env=own, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def complaint_of(process: subprocess.Popen) -> str:
    """Wait for the end of a process and return what it complained about, or nothing if it succeeded."""
    _, complaint = process.communicate()
    return (complaint.strip() or f"exit code {process.returncode}") if process.returncode else ""


def kill(command: list[str], wait: Callable[[], None]) -> None:
    """Start a command, wait for the moment, and kill it."""
    process = start(command)
    wait()
    process.kill()
    process.communicate()


# ---------------------------------------------------------------------------- kills


def weights(work: Path) -> str:
    """Return the checksum of the adapter's weights and of the TF-IDF model's, or why there is none."""
    files = sorted((work / "model").glob("*.safetensors"))
    return file_sha256(*files) if len(files) == 2 else f"{len(files)} files of weights"


def kill_training(trial: Trial, wait: Callable[[Path, float], None]) -> int:
    """Kill training runs; the result must stay whole, and a run that goes on must end like an undisturbed one.

    Args:
        wait: waits for the moment of a kill; gets the folder of the run and the seconds of an undisturbed one.
    """
    before, undisturbed = trial.adapter.parent, trial.folder / "undisturbed"
    seconds = trial.finish(trial.train(undisturbed, 2), "the undisturbed run")
    for number in range(trial.options.kills):
        work = trial.folder / f"run-{number}"
        shutil.copytree(before, work, ignore=shutil.ignore_patterns("results"))
        kill(trial.train(work, 2), lambda work=work: wait(work, seconds))
        whole = weights(work) in (weights(before), weights(undisturbed))
        trial.check(whole, f"run {number}: after the kill {weights(work)}")
        Classifier.load(work / "model")
        resume = ["--resume_from_checkpoint", "last"] if complete_checkpoints(work / "results") else []
        name = f"run {number}, {'resumed' if resume else 'anew'}"
        trial.finish(trial.train(work, 2, *resume), name)
        trial.check(weights(work) == weights(undisturbed), f"{name}: other weights than undisturbed")
        shutil.rmtree(work)
    return trial.options.kills


def training(trial: Trial) -> tuple[int, str]:
    """Kill training at any moment, from its start to its end."""
    tried = kill_training(trial, lambda _, seconds: time.sleep(trial.draw.uniform(0, seconds)))
    return tried, "previous result whole, resumed result equal to the byte"


def saving(trial: Trial) -> tuple[int, str]:
    """Kill training while it saves: from the first file of the new folder on."""

    def wait(work: Path, seconds: float) -> None:
        deadline = time.monotonic() + 10 * seconds
        while not (work / ".model.new").exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(trial.draw.uniform(0, 0.5))

    return kill_training(trial, wait), "previous or new result whole"


def scoring(trial: Trial) -> tuple[int, str]:
    """Kill file scoring at any moment, and let the same command go on until it is done."""
    source, undisturbed = trial.folder / "messages.csv", trial.folder / "undisturbed.csv"
    texts = [replace_half_surrogates(random_text(trial.draw, 200)) for _ in range(4000)]
    pd.DataFrame({"Text": texts}).to_csv(source, index=False)
    command = trial.score(source, undisturbed)
    seconds = trial.finish(command, "the undisturbed run")
    for number in range(trial.options.kills):
        target = trial.folder / f"{number}.csv"
        command = trial.score(source, target)
        kill(command, lambda: time.sleep(trial.draw.uniform(0, seconds)))
        trial.finish(command, str(number))
        trial.check(file_sha256(target) == file_sha256(undisturbed), f"{number}: another result")
        trial.check(not list(trial.folder.glob(f"{number}.csv.*")), f"{number}: left unfinished files")
    return trial.options.kills, "result equal to the byte"


def full_disk(trial: Trial) -> tuple[int, str]:
    """Train and score where files can only grow to a random size; the reason must be told in one line."""
    work, refused = trial.adapter.parent, 0
    for number in range(trial.options.kills):
        before, size = weights(work), round(10 ** trial.draw.uniform(3, 6))
        process = start(trial.score(MODERN, trial.folder / "scored.csv") if number % 2 else trial.train(work, number))
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        if complaint := complaint_of(process):
            refused += 1
            told = "Traceback" not in complaint and "cannot be written" in complaint
            trial.check(told, f"{number}, {size:,} bytes: {complaint.splitlines()[-1]}")
            trial.check(weights(work) == before, f"{number}, {size:,} bytes: the previous adapter is gone")
    return trial.options.kills, f"{refused} refused in one line, the previous result whole"


def together(trial: Trial) -> tuple[int, str]:
    """Start two scorings to one file, or two trainings to one folder: one is done, the other names the first."""
    for number in range(trial.options.kills // 2):
        target = trial.folder / f"{number}.csv"
        command = trial.train(trial.folder / f"run-{number}", number) if number % 2 else trial.score(MODERN, target)
        first = start(command)
        time.sleep(trial.draw.uniform(0, 2))
        refused = [complaint for process in (first, start(command)) if (complaint := complaint_of(process))]
        # The second may have begun after the end of the first.
        told = len(refused) < 2 and all("is being written by process" in text for text in refused)
        trial.check(told, f"{number}: {refused}")
        if not number % 2:
            whole = len(read_messages(target).table()) == len(read_tsv(MODERN))
            trial.check(whole, f"{number}: rows of two runs are mixed")
    return trial.options.kills // 2, "one result, whole; the other run names the process"


# ---------------------------------------------------------------------------- inputs


def random_text(draw: random.Random, longest: int) -> str:
    """Return Unicode, control characters, half surrogates or nested markup, of 1 to `longest` characters."""
    length = round(longest ** draw.random())
    kind = draw.randrange(5)
    if kind == 0:
        return "".join(chr(draw.randrange(1, 0x110000)) for _ in range(length))
    if kind == 1:
        return "".join(chr(draw.choice((*range(1, 33), *range(0x7F, 0xA0), 0x200B, 0xFEFF))) for _ in range(length))
    if kind == 2:
        return "".join(draw.choice("\ud800\udfffa é好🎁\u0301") for _ in range(length))
    if kind == 3:
        depth = max(1, length // 11)
        return ("<b><i>" * depth + "**[x](y)**" + "</i></b>" * depth)[:length]
    return "".join(draw.choice(f"{string.ascii_letters}    0123456789£!?") for _ in range(length))


def api(trial: Trial) -> tuple[int, str]:
    """Send random requests to the API, some of them broken JSON, and compare the answers with the model's own."""
    draw, requests, statuses = trial.draw, trial.options.requests, Counter()
    answered: list[tuple[str, dict]] = []

    async def ask(http: httpx.AsyncClient, limit: asyncio.Semaphore) -> None:
        async with limit:
            body = json.dumps({"texts": random_text(draw, 100_000)})
            text = json.loads(body)["texts"]  # Two halves of a surrogate pair that meet are one character in JSON.
            if broken := draw.random() < 0.1:
                body = body[: draw.randrange(len(body))]
            answer = await http.post("/api/classify", content=body, headers={"Content-Type": "application/json"})
        status = answer.status_code
        statuses[status] += 1
        trial.check(status in ({422} if broken or is_empty(text) else {200, 503}), f"{status} for {body[:60]!r}")
        if status == 200 and len(text) < 2000:
            answered.append((text.strip(), answer.json()["results"][0]))

    async def ask_all(address: str) -> None:
        limit = asyncio.Semaphore(8)
        # Drawing a text takes a while, in which the server may close a connection that is not used.
        no_reuse = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(base_url=address, timeout=120, limits=no_reuse) as http:
            await asyncio.gather(*(ask(http, limit) for _ in range(requests)))

    with trial.serve() as address:
        asyncio.run(ask_all(address))
    own_answers = Classifier.load(trial.adapter, fast_dtype()).answer([text for text, _ in answered])
    for (text, said), own in zip(answered, own_answers, strict=True):
        probability = own.probability if said["label"] == "spam" else 1 - own.probability
        same = abs(said["probability"] - probability) <= 0.02
        trial.check(same, f"{said} instead of {own} for {text[:40]!r}")
    return requests, ", ".join(f"{count:,} times {status}" for status, count in statuses.most_common())


def page(trial: Trial) -> tuple[int, str]:
    """Type random messages through the page's own protocol; each must get an answer."""

    async def type_all(address: str) -> None:
        async with ChatClient(address) as client:
            for _ in range(trial.options.typed):
                text = random_text(trial.draw, 20_000)
                await client.send(text)
                try:
                    reply = await client.answer(60)
                except TimeoutError:
                    trial.failed.append(f"no answer to {text[:40]!r}")
                    continue
                right = (LABELLED in reply) != is_empty(text) and ERROR not in reply
                trial.check(right, f"{reply!r} to {text[:40]!r}")

    with trial.serve() as address:
        asyncio.run(type_all(address))
    return trial.options.typed, "a label, or the polite reply to an empty message"


def reader(trial: Trial) -> tuple[int, str]:
    """Give malformed files to the reader; it must return a table or say in one line why not."""
    draw, outcomes = trial.draw, Counter()
    table = pd.DataFrame({"id": [1, 2], "text": ["hello, there", "WIN a prize"]})
    for ending in ("csv", "csv.gz", "csv.xz", "tsv"):
        table.to_csv(trial.folder / f"whole.{ending}", sep="\t" if ending == "tsv" else ",", index=False)
    table.to_json(trial.folder / "whole.jsonl", orient="records", lines=True)
    table.to_excel(trial.folder / "whole.xlsx", index=False)
    (trial.folder / "whole.txt").write_text("hello\n你好\n", encoding="gb18030")
    whole = {path.name.removeprefix("whole"): path.read_bytes() for path in sorted(trial.folder.glob("whole.*"))}
    for number in range(trial.options.files):
        suffix = draw.choice(list(whole))
        content = bytearray(whole[suffix])
        for _ in range(draw.randint(1, 20)):
            at = draw.randrange(len(content))
            content[at : at + draw.randrange(3)] = draw.randbytes(draw.randrange(4))
        if draw.random() < 0.2:
            content = content[: draw.randrange(len(content))]
        path = trial.folder / f"file{suffix}"
        path.write_bytes(content)
        try:
            read_messages(path, limits=FILE_LIMITS).table()
            outcomes["read"] += 1
        except TableError:
            outcomes["refused"] += 1
        except Exception as error:
            trial.failed.append(f"file {number}{suffix}: {type(error).__name__}: {error}")
    return trial.options.files, f"{outcomes['read']} times read, {outcomes['refused']} times refused"


def outputs(trial: Trial) -> tuple[int, str]:
    """Score random texts to every kind of file; whatever is written must be read back as the same cells."""
    source = trial.folder / "messages.jsonl"
    texts = [random_text(trial.draw, 200) for _ in range(trial.options.files)]
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    expected = read_messages(source).table()["text"].tolist()
    endings = (".csv", ".csv.gz", ".tsv", ".tsv.bz2", ".jsonl", ".jsonl.xz", ".xlsx")
    for ending in endings:
        target = trial.folder / f"scored{ending}"
        trial.finish(trial.score(source, target), ending)
        read = {"this project": read_messages(target).table()["text"].tolist()}
        if ending == ".csv":
            with target.open(encoding="utf-8-sig", newline="") as file:
                read["csv"] = [row["text"] for row in csv.DictReader(file)]
            read["pandas"] = pd.read_csv(target, dtype=str, keep_default_na=False)["text"].tolist()
        for who, cells in read.items():
            trial.check(cells == expected, f"{ending}, read by {who}: other cells")
    return len(endings) * trial.options.files, ", ".join(endings)


# ---------------------------------------------------------------------------- visitors


def visitors(trial: Trial) -> tuple[int, str]:
    """Let many people chat and restart the server in the middle; compare every label with the model's own."""
    texts = read_tsv(MODERN)["Text"].sample(200, random_state=trial.draw.randrange(100)).tolist()
    answers = Classifier.load(trial.adapter, fast_dtype()).answer(texts)
    labels = {text: answer.label for text, answer in zip(texts, answers, strict=True)}
    people, half = trial.options.people, 30 * trial.options.minutes
    port, counted, memory = free_port(), Counter(), []

    async def visit(draw: random.Random) -> None:
        while True:
            # A restart ends the connection; the visitor comes back.
            try:
                async with ChatClient(f"http://127.0.0.1:{port}") as client:
                    while True:
                        text = draw.choice(texts)
                        await client.send(text)
                        reply = await client.answer(60)
                        counted["answers" if LABELLED in reply else "busy"] += 1
                        right = ERROR not in reply and (LABELLED not in reply or f"**{labels[text]}**" in reply)
                        trial.check(right, f"{reply!r} instead of {labels[text]} to {text[:40]!r}")
            except Exception:
                counted["lost"] += 1
                await asyncio.sleep(1)

    async def chat() -> None:
        tasks = [asyncio.create_task(visit(random.Random(person))) for person in range(people)]
        for _ in range(2):
            # The people stand still while the server starts, because this thread waits for it.
            with trial.serve(port):
                for _ in range(30):
                    await asyncio.sleep(half / 30)
                    # The server is the child of this process that serves at the port.
                    served = [child for child in psutil.Process().children() if str(port) in child.cmdline()]
                    memory.append(sum(child.memory_info().rss for child in served) / 2**20)
        for task in tasks:
            task.cancel()

    asyncio.run(chat())
    lost = counted["lost"]
    trial.check(lost <= people, f"{lost} messages without an answer; the restart explains one of each person")
    # A server grows while it prepares batches of all sizes; from the middle of its time on it may not.
    settled, end = memory[3 * len(memory) // 4], memory[-1]
    growth = f"memory of the second server {settled:,.0f} MiB after half its time, {end:,.0f} at its end"
    trial.check(end <= 1.05 * settled, growth)
    return counted["answers"], f"{people} people, {counted['busy']} times busy, {lost} lost at the restart, {growth}"


_ALL = (training, saving, scoring, full_disk, together, api, page, reader, outputs, visitors)
PARTS: dict[str, Callable[[Trial], tuple[int, str]]] = {part.__name__: part for part in _ALL}
"""Each part returns how many things it tried, and a note."""


def main() -> int:
    """Run the parts, print a table of them and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=20, help="of training, of saving and of scoring each")
    parser.add_argument("--requests", type=int, default=10_000, help="to the API")
    parser.add_argument("--typed", type=int, default=500, help="messages through the page's protocol")
    parser.add_argument("--files", type=int, default=500, help="malformed files")
    parser.add_argument("--people", type=int, default=50, help="who chat at the same time")
    parser.add_argument("--minutes", type=float, default=5, help="that they chat for")
    options = parser.parse_args()
    rows = [["Part", "Tried", "Failed", ""]]
    for name in options.parts:
        with tempfile.TemporaryDirectory() as folder:
            # The tiny models would push real ones out of the user's cache.
            os.environ["XDG_CACHE_HOME"] = folder
            trial = Trial(Path(folder), random.Random(options.seed), options)
            try:
                tried, note = PARTS[name](trial)
            except Exception:
                tried, note = 0, "ended early"
                trial.failed.append(traceback.format_exc())
        failed = len(trial.failed)
        rows.append([name, f"{tried:,}", str(failed), note])
        print(f"{name}: {tried:,} tried, {failed} failed. {note}", *trial.failed[:10], sep="\n  ", flush=True)
    publish(__file__, "What survives", markdown_table(rows))
    return int(any(int(failed) for _, _, failed, _ in rows[1:]))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main())
