"""Laws that the contracts in pyproject.toml cannot check: for scripts at the root, the import path, file lengths."""

import ast
import subprocess

import pytest
from shared import REPOSITORY

import gpt_classification_model
import text_classifier

SCRIPTS = sorted(REPOSITORY.glob("*.py"))


def imported_by(file) -> set[str]:
    """Return the modules that a file imports, inside functions too."""
    modules = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            modules |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module)
    return modules


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_imports_no_other_script_and_no_tests(script):
    others = {other.stem for other in SCRIPTS} | {"conftest", "shared", "tests", "benchmarks"}
    assert not {module.partition(".")[0] for module in imported_by(script)} & others


def test_the_chat_app_never_imports_training():
    app = REPOSITORY / "chainlit_gpt_classification.py"
    assert "chat.server" in imported_by(app)
    assert not [module for module in imported_by(app) if module.startswith("text_classifier.training")]


def test_no_file_edits_the_path():
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=REPOSITORY, capture_output=True, text=True)
    files = [REPOSITORY / name for name in listed.stdout.split()] or list(REPOSITORY.rglob("*.py"))
    for file in files:
        source = file.read_text()
        assert "sys.path" + "." not in source and "sys.path" + "[" not in source, file


def test_documented_names_are_found_where_people_know_them():
    for name in ("create_balanced_dataset", "random_split", "SpamDataset", "AccuracyCallback", "plot_metrics"):
        assert callable(getattr(gpt_classification_model, name))
    assert text_classifier.classify and text_classifier.load_tokenizer_and_model
    app = ast.parse((REPOSITORY / "chainlit_gpt_classification.py").read_text())
    defined = {node.name for node in app.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert {"get_model_and_tokenizer", "classify_review", "main"} <= defined
