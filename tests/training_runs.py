"""Training runs at small size, for several test modules."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from sklearn.metrics import log_loss

import gpt_classification_model
from text_classifier.classifier import classify, load_tokenizer_and_model

SCRIPT = Path(__file__).resolve().parent.parent / "gpt_classification_model.py"

QUICK = (
    "--num_train_epochs 3 --eval_steps 5 --save_steps 5 --logging_steps 5 --save_total_limit 9 "
    "--learning_rate 5e-3 --disable_tqdm true --bf16 false --minority_repeats 0 --load_best_model_at_end true"
)
# A run on a file of one's own goes to a folder named after it; the tests look at the places of the default recipe.
PLACES = "--output_dir ./results --adapter_dir lora_model --dataset_dir dataset"


def arguments(base: Path | str, messages_csv: Path, *more: str) -> list[str]:
    return ["--model_name_or_path", str(base), "--data_file", str(messages_csv), *PLACES.split(), *QUICK.split(), *more]


def run_here(folder: Path, argv: list[str], charts: bool = False) -> int:
    """Run the script's `main` in `folder`, where it puts its outputs; return the exit code.

    Drawing takes a third of such a run, so there are only `charts` for who looks at them.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        if not charts:
            patch.setattr(gpt_classification_model, "plot_metrics", lambda *_, **__: None)
            patch.setattr(gpt_classification_model, "reliability_page", lambda *_: None)
        return gpt_classification_model.main(argv)


def run_process(folder: Path, *words: str | Path, **environment: str | Path) -> subprocess.CompletedProcess:
    """Run `python` with these words in `folder`, on one thread; it must end well."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **{name: str(value) for name, value in environment.items()}}
    command = [sys.executable, *map(str, words)]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return result


def report_of(folder: Path) -> dict:
    """Return the report of the run in `folder`."""
    return json.loads((folder / "results/metrics.json").read_text())


def assert_served_as_reported(adapter: Path, dataset: Path, report: dict) -> None:
    """Saving and loading change nothing: the loss on the test split stays that of the trained model."""
    test = pd.read_csv(dataset / "test.csv")
    answers = classify(test["Text"].tolist(), *load_tokenizer_and_model(adapter))
    probabilities = [answer.positive_probability for answer in answers]
    reported = report["results"][report["saved"]]["test"]["loss"]
    assert log_loss(test["Label"], probabilities) == pytest.approx(reported, abs=1e-5)
