"""The documents: their links lead somewhere, their options exist, and the first page stays short."""

import dataclasses
import re

import pytest
from shared import REPOSITORY

from text_classifier.extras.pretraining import CorpusArguments, GPTArguments
from text_classifier.training.config import DataArguments, FineTuningArguments, ModelArguments

FOLDERS = (".", "docs", "dataset", "benchmarks", "lora_model")
DOCUMENTS = sorted(str(path.relative_to(REPOSITORY)) for name in FOLDERS for path in (REPOSITORY / name).glob("*.md"))
OPTIONS = (ModelArguments, DataArguments, FineTuningArguments, GPTArguments, CorpusArguments)
OF_OTHER_PROGRAMS = {"help", "index-url", "host", "headless", "root-path", "nproc_per_node", "logdir"}
OF_OTHER_PROGRAMS |= {"tag", "publish", "env", "volume", "build-arg"}  # docker


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives the headings of a Markdown file."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_to_files_and_headings(name):
    document = REPOSITORY / name
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        if target.startswith(("http", "/")):
            continue
        path, _, anchor = target.partition("#")
        linked = (document.parent / path) if path else document
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("name", DOCUMENTS)
def test_options_in_documents_exist(name):
    known = {field.name for options in OPTIONS for field in dataclasses.fields(options)} | OF_OTHER_PROGRAMS
    for folder in ("text_classifier", "benchmarks"):
        for file in (REPOSITORY / folder).rglob("*.py"):
            known |= set(re.findall(r'"--([a-z_]+)"', file.read_text(encoding="utf-8")))
    used = set(re.findall(r"(?<![\w-])--([a-z][\w-]*)", (REPOSITORY / name).read_text(encoding="utf-8")))
    assert used <= known


@pytest.mark.parametrize("name", ["README.md", "README.zh-CN.md"])
def test_the_first_page_has_at_most_110_lines(name):
    assert len((REPOSITORY / name).read_text(encoding="utf-8").splitlines()) <= 110
