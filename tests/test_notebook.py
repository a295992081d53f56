"""The notebook runs from its first cell to its last, with a tiny base model in place of GPT-2."""

import shutil

import nbformat
import pytest
from nbclient import NotebookClient
from shared import REPOSITORY


@pytest.mark.registry
def test_every_cell_runs(tmp_path, tiny_gpt2, messages_csv):
    for name in ("text_classifier", "recipes", "gpt_classification_model.py", "requirements.txt"):
        source = REPOSITORY / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    notebook = nbformat.read(REPOSITORY / "docs" / "train_on_gpu.ipynb", as_version=4)
    (training,) = [cell for cell in notebook.cells if "options = " in cell["source"]]
    tiny = (
        f"--model_name_or_path {tiny_gpt2} --data_file {messages_csv} --num_train_epochs 1 --dataset_dir results/data"
    )
    training["source"] = training["source"].replace('options = "', f'options = "{tiny} ')
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    charts, answers = [cell["outputs"] for cell in notebook.cells if cell["cell_type"] == "code"][-2:]
    assert len(charts) == 2 and all("image/png" in chart["data"] for chart in charts)
    printed = "".join(output["text"] for output in answers if output.get("name") == "stdout").splitlines()
    assert len(printed) == 2 and {line.split()[0] for line in printed} <= {"ham", "spam"}
