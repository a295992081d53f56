"""Measure what survives kills at random moments, random inputs, and many visitors with a restart.

python -m benchmarks.robustness                       # all parts, half an hour on two CPU cores
python -m benchmarks.robustness --parts api reader    # some of them

A tiny model with random weights stands in for the real one: the code around it is the same, and a run takes seconds.
Everything happens in a folder of its own and on 127.0.0.1. The exit code is 1 if anything failed.
"""

import argparse
import asyncio
import contextlib
import csv
import gzip
import io
import json
import lzma
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
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pandas as pd
import psutil
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks.app_server import ChatClient, copy_of_app, free_port, running_app
from benchmarks.common import REPOSITORY, publish
from chat.dropped_files import LIMITS
from text_classifier.characters import is_empty, replace_half_surrogates
from text_classifier.classifier import Classifier
from text_classifier.extras.corpus import train_tokenizer
from text_classifier.files import file_sha256
from text_classifier.metrics import markdown_table
from text_classifier.reading.messages import read_messages
from text_classifier.reading.notes import TableError
from text_classifier.runtime import fast_dtype
from text_classifier.training.data import MADE_UP_MESSAGES
from text_classifier.training.runs import complete_checkpoints

Part = Callable[[Path, random.Random, argparse.Namespace], tuple[int, list[str], str]]
"""Returns how many things were tried, what failed, and a note."""


# ---------------------------------------------------------------------------- kills


def modern_texts() -> pd.Series:
    """Return the modern messages to train on."""
    return read_messages(MADE_UP_MESSAGES["modern"]).table()["Text"]


def make_base(folder: Path) -> Path:
    """Save a tiny GPT-2 with random weights and a tokenizer of the messages, like a base model."""
    tokenizer = train_tokenizer(modern_texts().tolist(), 1000)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    size = {"n_positions": 128, "n_embd": 32, "n_layer": 2, "n_head": 2}
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **size, **ends)).save_pretrained(folder)
    return folder


def training_command(work: Path, base: Path, seed: int, *more: str) -> list[str]:
    """Return a command that trains in `work` within seconds."""
    flags = f"""--model_name_or_path {base} --fallback_model none --seed {seed}
        --data_file {MADE_UP_MESSAGES["modern"]} --output_dir {work}/results
        --adapter_dir {work}/model --metrics_pdf {work}/metrics.pdf --dataset_dir {work}/dataset
        --num_train_epochs 2 --eval_steps 30 --save_steps 10 --save_total_limit 3 --bf16 false --disable_tqdm true"""
    return [sys.executable, str(REPOSITORY / "gpt_classification_model.py"), *flags.split(), *more]


def start(command: list[str], largest_file: int = resource.RLIM_INFINITY) -> subprocess.Popen:
    """Start a command on one thread, so that equal runs give equal bytes; what it says goes to nobody.

    Args:
        largest_file: bytes that a file can have; more is an error, as on a full disk.
    """
    own = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(command, env=own, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
    return process


def finish(command: list[str]) -> str:
    """Run a command to its end and return the last line of its complaints, or nothing if it succeeded."""
    process = start(command)
    _, complaints = process.communicate()
    return complaints.decode().strip().splitlines()[-1] if process.returncode else ""


def weights(work: Path) -> str:
    """Return the checksum of the adapter's weights and of the TF-IDF model's, or why there is none."""
    files = sorted((work / "model").glob("*.safetensors"))
    return file_sha256(*files) if len(files) == 2 else f"{len(files)} files of weights"


def kill_training(folder: Path, draw: random.Random, times: int, moment: Callable[[Path, float], None]) -> list[str]:
    """Kill training runs and return what was not whole, or did not end like an undisturbed run.

    Args:
        moment: waits for the moment of a kill; gets the folder of the run and the seconds of an undisturbed one.
    """
    base, before, undisturbed = make_base(folder / "base"), folder / "before", folder / "undisturbed"
    for work, seed in ((before, 1), (undisturbed, 2)):
        started = time.perf_counter()
        if complaint := finish(training_command(work, base, seed)):
            return [f"the undisturbed run: {complaint}"]
        seconds = time.perf_counter() - started
    failed, whole = [], {weights(before), weights(undisturbed)}
    for number in range(times):
        work = folder / f"run-{number}"
        shutil.copytree(before, work, ignore=shutil.ignore_patterns("results"))
        process = start(training_command(work, base, 2))
        moment(work, seconds)
        process.kill()
        process.communicate()
        if weights(work) not in whole:
            failed.append(f"run {number}: after the kill {weights(work)}")
        Classifier.load(work / "model")
        resume = ["--resume_from_checkpoint", "last"] if complete_checkpoints(work / "results") else []
        if complaint := finish(training_command(work, base, 2, *resume)):
            failed.append(f"run {number}: {'resumed' if resume else 'anew'}: {complaint}")
        elif weights(work) != weights(undisturbed):
            failed.append(f"run {number}: {'resumed' if resume else 'anew'}, other weights than undisturbed")
        shutil.rmtree(work)
    return failed


def training(folder: Path, draw: random.Random, options: argparse.Namespace) -> tuple[int, list[str], str]:
    """Kill training at any moment, from its start to its end."""
    failed = kill_training(folder, draw, options.kills, lambda _, seconds: time.sleep(draw.uniform(0, seconds)))
    return options.kills, failed, "previous result whole, resumed result equal to the byte"


def saving(folder: Path, draw: random.Random, options: argparse.Namespace) -> tuple[int, list[str], str]:
    """Kill training while it saves: from the first file of the new folder on."""

    def moment(work: Path, seconds: float) -> None:
        deadline = time.monotonic() + 10 * seconds
        while not (work / ".model.new").exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.5))

    failed = kill_training(folder, draw, options.kills, moment)
    return options.kills, failed, "previous or new result whole"


def scoring(folder: Path, draw: random.Random, options: argparse.Namespace) -> tuple[int, list[str], str]:
    """Kill file scoring at any moment, and let the same command go on until it is done."""
    adapter, source = make_adapter(folder), folder / "messages.csv"
    pd.DataFrame({"Text": [replace_half_surrogates(random_text(draw, 200)) for _ in range(4000)]}).to_csv(
        source, index=False
    )

    def command(target: Path) -> list[str]:
        words = ["-m", "text_classifier", source, "--output", target, "--adapter_dir", adapter]
        return [sys.executable, *map(str, words)]

    started = time.perf_counter()
    if complaint := finish(command(folder / "undisturbed.csv")):
        return 0, [complaint], ""
    seconds, failed = time.perf_counter() - started, []
    for number in range(options.kills):
        target = folder / f"{number}.csv"
        process = start(command(target))
        time.sleep(draw.uniform(0, seconds))
        process.kill()
        process.communicate()
        if complaint := finish(command(target)):
            failed.append(f"{number}: {complaint}")
        elif file_sha256(target) != file_sha256(folder / "undisturbed.csv"):
            failed.append(f"{number}: another result")
        if remains := list(folder.glob(f"{number}.csv.*")):
            failed.append(f"{number}: left {remains[0].name}")
    return options.kills, failed, "result equal to the byte"


def full_disk(folder: Path, draw: random.Random, options: argparse.Namespace) -> tuple[int, list[str], str]:
    """Train and score where files can only grow to a random size; the reason must be told in one line."""
    adapter, failed, refused = make_adapter(folder), [], 0
    work, source = adapter.parent, folder / "messages.csv"
    modern_texts().to_csv(source, index=False)
    before = weights(work)
    scoring_command = [sys.executable, "-m", "text_classifier", str(source), "--output", str(folder / "scored.csv")]
    for number in range(options.kills):
        size = round(10 ** draw.uniform(3, 6))
        command = training_command(work, folder / "base", number)
        if number % 2:
            command = [*scoring_command, "--adapter_dir", str(adapter)]
        process = start(command, largest_file=size)
        _, complaints = process.communicate()
        if process.returncode == 0:
            before = weights(work)
            continue
        refused += 1
        told = complaints.decode()
        if "Traceback" in told or "cannot be written" not in told:
            failed.append(f"{number}, {size:,} bytes: {told.strip().splitlines()[-1]}")
        if weights(work) != before:
            failed.append(f"{number}, {size:,} bytes: the previous adapter is gone")
    return options.kills, failed, f"{refused} refused in one line, the previous result whole"


def together(folder: Path, draw: random.Random, options: argparse.Namespace) -> tuple[int, list[str], str]:
    """Start two scorings to one file, or two trainings to one folder: one is done, the other names the first."""
    adapter, source, failed = make_adapter(folder), folder / "messages.csv", []
    modern_texts().to_csv(source, index=False)
    for number in range(options.kills // 2):
        target = folder / f"{number}.csv"
        command = [sys.executable, "-m", "text_classifier", str(source), "--output", str(target)]
        command += ["--adapter_dir", str(adapter)]
        if number % 2:
            command = training_command(folder / f"run-{number}", folder / "base", number)
        processes = [start(command)]
        time.sleep(draw.uniform(0, 2))
        processes.append(start(command))
        told = [process.communicate()[1].decode() for process in processes]
        refused = [text for text, process in zip(told, processes, strict=True) if process.returncode]
        # The second may have begun after the end of the first.
        if len(refused) > 1 or any("is being written by process" not in text for text in refused):
            failed.append(f"{number}: {refused}")
        if not number % 2 and len(read_messages(target).table()) != len(modern_texts()):
            failed.append(f"{number}: rows of two runs are mixed")
    return options.kills // 2, failed, "one result, whole; the other run names the process"


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


def make_adapter(folder: Path) -> Path:
    """Train a tiny adapter and return its folder."""
    work, base = folder / "adapter", make_base(folder / "base")
    if complaint := finish(training_command(work, base, 1)):
        raise SystemExit(complaint)
    return work / "model"


@contextlib.contextmanager
def served_adapter(folder: Path, port: int | None = None) -> Iterator[tuple[str, Path]]:
    """Serve a tiny adapter by the chat; yield the address and the adapter's folder."""
    adapter = folder / "adapter" / "model"
    if not adapter.exists():
        make_adapter(folder)
    if not (folder / ".chainlit").exists():
        copy_of_app(folder)
    with running_app(folder, port=port, ADAPTER_DIR=str(adapter)) as address:
        yield address, adapter


def api(folder: Path, draw: random.Random, options: argparse.Namespace) -> tuple[int, list[str], str]:
    """Send random requests to the API, some of them broken JSON, and compare the answers with the model's own."""
    statuses, failed = Counter(), []

    async def ask(http: httpx.AsyncClient, limit: asyncio.Semaphore, text: str, broken: bool) -> None:
        body = json.dumps({"texts": text})
        text = json.loads(body)["texts"]  # Two halves of a surrogate pair that meet are one character in JSON.
        if broken:
            body = body[: draw.randrange(len(body))]
        async with limit:
            answer = await http.post("/api/classify", content=body, headers={"Content-Type": "application/json"})
        statuses[answer.status_code] += 1
        expected = {422} if broken or is_empty(text) else {200, 503}
        if answer.status_code not in expected:
            failed.append(f"{answer.status_code} for {body[:60]!r}")
        elif answer.status_code == 200 and len(text) < 2000:
            asked.append((text, answer.json()["results"][0]))

    async def ask_all(address: str) -> None:
        limit = asyncio.Semaphore(8)
        async with httpx.AsyncClient(base_url=address, timeout=120) as http:
            for start_at in range(0, options.requests, 500):
                texts = [random_text(draw, 100_000) for _ in range(min(500, options.requests - start_at))]
                await asyncio.gather(*(ask(http, limit, text, draw.random() < 0.1) for text in texts))

    asked: list[tuple[str, dict]] = []
    with served_adapter(folder) as (address, adapter):
        asyncio.run(ask_all(address))
    classifier = Classifier.load(adapter, fast_dtype())
    texts = [text.strip() for text, _ in asked]
    for (text, said), own in zip(asked, classifier.answer(texts), strict=True):
        probability = own.probability if said["label"] == "spam" else 1 - own.probability
        if abs(said["probability"] - probability) > 0.02:
            failed.append(f"{said} instead of {own} for {text[:40]!r}")
    if "Traceback" in (folder / "log.txt").read_text():
        failed.append("a traceback in the server's log")
    return options.requests, failed, ", ".join(f"{count:,} times {status}" for status, count in statuses.most_common())


def page(folder: Path, draw: random.Random, options: argparse.Namespace) -> tuple[int, list[str], str]:
    """Type random messages through the page's own protocol; each must get an answer."""
    failed = []

    async def type_all(address: str) -> None:
        async with ChatClient(address) as client:
            for _ in range(options.typed):
                text = random_text(draw, 20_000)
                await client.send(text)
                try:
                    reply = await client.answer(60)
                except TimeoutError:
                    failed.append(f"no answer to {text[:40]!r}")
                    continue
                if ("该文本被分类为" in reply) == is_empty(text) or "错误信息" in reply:
                    failed.append(f"{reply!r} to {text[:40]!r}")

    with served_adapter(folder) as (address, _):
        asyncio.run(type_all(address))
    return options.typed, failed, "a label, or the polite reply to an empty message"


def reader(folder: Path, draw: random.Random, options: argparse.Namespace) -> tuple[int, list[str], str]:
    """Give malformed files to the reader; it must return a table or say in one line why not."""
    failed, outcomes = [], Counter()
    table, workbook = b'id,text\n1,"hello, there"\n2,WIN a prize\n', io.BytesIO()
    pd.DataFrame({"id": [1, 2], "text": ["hello, there", "WIN a prize"]}).to_excel(workbook, index=False)
    seeds = {".csv": table, ".tsv": table.replace(b",", b"\t"), ".txt": "hello\n你好\n".encode("gb18030")}
    seeds |= {".jsonl": b'{"text": "hello"}\n{"text": "bye"}\n', ".xlsx": workbook.getvalue()}
    seeds |= {".csv.gz": gzip.compress(table), ".csv.xz": lzma.compress(table)}
    for number in range(options.files):
        suffix = draw.choice(list(seeds))
        content = bytearray(seeds[suffix])
        for _ in range(draw.randint(1, 20)):
            at = draw.randrange(len(content))
            content[at : at + draw.randrange(3)] = draw.randbytes(draw.randrange(4))
        if draw.random() < 0.2:
            content = content[: draw.randrange(len(content))]
        path = folder / f"file{suffix}"
        path.write_bytes(content)
        try:
            read_messages(path, limits=LIMITS).table()
            outcomes["read"] += 1
        except TableError:
            outcomes["refused"] += 1
        except Exception as error:
            failed.append(f"file {number}{suffix}: {type(error).__name__}: {error}")
    return options.files, failed, f"{outcomes['read']} times read, {outcomes['refused']} times refused"


def outputs(folder: Path, draw: random.Random, options: argparse.Namespace) -> tuple[int, list[str], str]:
    """Score random texts to every kind of file; whatever is written must be read back as the same cells."""
    adapter, source, failed = make_adapter(folder), folder / "messages.jsonl", []
    texts = [random_text(draw, 200) for _ in range(options.files)]
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    expected = read_messages(source).table()["text"].tolist()
    endings = (".csv", ".csv.gz", ".tsv", ".tsv.bz2", ".jsonl", ".jsonl.xz", ".xlsx")
    for ending in endings:
        target = folder / f"scored{ending}"
        words = ["-m", "text_classifier", source, "--output", target, "--adapter_dir", adapter]
        if complaint := finish([sys.executable, *map(str, words)]):
            failed.append(f"{ending}: {complaint}")
            continue
        read = {"this project": read_messages(target).table()["text"].tolist()}
        if ending == ".csv":
            with target.open(encoding="utf-8-sig", newline="") as file:
                read["csv"] = [row["text"] for row in csv.DictReader(file)]
            read["pandas"] = pd.read_csv(target, dtype=str, keep_default_na=False)["text"].tolist()
        failed += [f"{ending}, read by {who}: other cells" for who, cells in read.items() if cells != expected]
    return len(endings) * options.files, failed, ", ".join(endings)


# ---------------------------------------------------------------------------- visitors


def visitors(folder: Path, draw: random.Random, options: argparse.Namespace) -> tuple[int, list[str], str]:
    """Let many people chat and restart the server in the middle; compare every label with the model's own."""
    texts = modern_texts().sample(200, random_state=draw.randrange(100)).tolist()
    port, failed, counted, memory, logs = free_port(), [], Counter(), [], []

    async def visit(address: str, own: random.Random, labels: dict[str, str]) -> None:
        while True:
            # A restart ends the connection; the visitor comes back.
            try:
                async with ChatClient(address) as client:
                    while True:
                        text = own.choice(texts)
                        await client.send(text)
                        reply = await client.answer(60)
                        labelled = "该文本被分类为" in reply
                        counted["answers" if labelled else "busy"] += 1
                        if "错误信息" in reply or (labelled and f"**{labels[text]}**" not in reply):
                            failed.append(f"{reply!r} instead of {labels[text]} to {text[:40]!r}")
            except Exception:
                counted["lost"] += 1
                await asyncio.sleep(1)

    async def watch(half: float) -> None:
        end = time.monotonic() + half
        # The server is the child of this process that serves at the port.
        while time.monotonic() < end:
            await asyncio.sleep(min(5, half / 10))
            served = [child for child in psutil.Process().children() if str(port) in child.cmdline()]
            memory.append(sum(child.memory_info().rss for child in served) / 2**20)

    async def chat(labels: dict[str, str]) -> None:
        # The people chat until asyncio cancels them at the end.
        people = []
        for _ in range(2):
            # The people stand still while the server starts, because this thread waits for it.
            with served_adapter(folder, port) as (address, _):
                people = people or [
                    asyncio.create_task(visit(address, random.Random(number), labels))
                    for number in range(options.people)
                ]
                await watch(30 * options.minutes)
            logs.append((folder / "log.txt").read_text())

    make_adapter(folder)
    classifier = Classifier.load(folder / "adapter" / "model", fast_dtype())
    labels = {text: answer.label for text, answer in zip(texts, classifier.answer(texts), strict=True)}
    asyncio.run(chat(labels))
    failed += ["a traceback in the server's log" for log in logs if "Traceback" in log]
    if counted["lost"] > options.people:
        failed.append(f"{counted['lost']} messages without an answer; the restart explains one of each person")
    # A server grows while it prepares batches of all sizes; from the middle of its time on it may not.
    settled, end = memory[3 * len(memory) // 4], memory[-1]
    if end > 1.05 * settled:
        failed.append(f"the second server's memory grew from {settled:,.0f} to {end:,.0f} MiB")
    growth = f"memory of the second server {settled:,.0f} MiB after half its time, {end:,.0f} at its end"
    note = f"{options.people} people, {counted['busy']} times busy, {counted['lost']} lost at the restart, {growth}"
    return counted["answers"], failed, note


_ALL = (training, saving, scoring, full_disk, together, api, page, reader, outputs, visitors)
PARTS: dict[str, Part] = {part.__name__: part for part in _ALL}


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
            tried, failed, note = PARTS[name](Path(folder), random.Random(options.seed), options)
        rows.append([name, f"{tried:,}", str(len(failed)), note])
        print(f"{name}: {tried:,} tried, {len(failed)} failed. {note}", *failed[:10], sep="\n  ", flush=True)
    publish(__file__, "What survives", markdown_table(rows))
    return int(any(int(failed) for _, _, failed, _ in rows[1:]))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main())
