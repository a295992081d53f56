"""A run that is killed while it saves leaves whole files, and the charts can be drawn for any run."""

import errno
import shutil
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import PdfPages
from safetensors import SafetensorError
from shared import PACKAGE_PATH
from training_runs import arguments, run_here, run_process
from transformers import BertConfig, DistilBertConfig, GPT2Config, LlamaConfig

import gpt_classification_model
from text_classifier.classifier import load_tokenizer_and_model
from text_classifier.files import exclusive
from text_classifier.training.charts import plot_metrics
from text_classifier.training.saving import kept_layers


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Calls of a run that saves; the run is killed in one of them.
MOMENTS = {
    "tokenizer": "transformers.PreTrainedTokenizerBase.save_pretrained",
    "exchange": "text_classifier.training.saving.exchange_folder",
    "removal": "shutil.rmtree",
    "charts": "matplotlib.figure.Figure.savefig",
}

# Trains in the folders that are named first, in one process each, which kills itself at the moment of that name.
KILLED_RUNS = f"""
import os, pkgutil, signal, sys
import gpt_classification_model as script

def run(argv, moment):
    def die(*_, ignore_errors=False, **__):
        ignore_errors or os.kill(os.getpid(), signal.SIGKILL)

    def arm(*arguments, **options):
        owner, _, name = moment.rpartition(".")
        setattr(pkgutil.resolve_name(owner), name, die)
        return save(*arguments, **options)

    save, script.save_adapter = script.save_adapter, arm
    script.main(argv)

moments = {MOMENTS}
for name, moment in moments.items():
    child = os.fork()
    if not child:
        os.chdir(name)
        run(sys.argv[1:], moment)
        os._exit(0)
    print(name, os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def killed(trained, tmp_path_factory, tiny_gpt2, messages_csv) -> Path:
    """A folder with the results of second runs that were killed while they saved: one for each of the moments."""
    folder = tmp_path_factory.mktemp("killed")
    for name in MOMENTS:
        shutil.copytree(trained, folder / name)
    argv = arguments(tiny_gpt2, messages_csv, "--seed", "7", "--num_train_epochs", "1")
    printed = run_process(folder, "-c", KILLED_RUNS, *argv, PYTHONPATH=PACKAGE_PATH).stdout
    assert [line for line in printed.splitlines() if line.endswith(" True")] == [f"{name} True" for name in MOMENTS]
    return folder


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_any_moment_of_saving_leaves_whole_files(trained, killed, tiny_gpt2, messages_csv, moment):
    """Each output must be the first run's or the second's, whole."""
    work = killed / moment
    old, new = snapshot(trained), snapshot(work)
    adapter, previous = (
        {name: content for name, content in files.items() if name.startswith("lora_model/")} for files in (new, old)
    )
    if moment in ("tokenizer", "exchange"):
        assert adapter == previous
    else:
        assert adapter.keys() == previous.keys() and adapter != previous, "the new adapter, whole"
    load_tokenizer_and_model(work / "lora_model")
    assert new["training_metrics.pdf"] == old["training_metrics.pdf"]
    assert new["results/metrics.json"] == old["results/metrics.json"]
    if moment == "removal":
        assert (work / ".lora_model.new").exists()
        assert run_here(work, arguments(tiny_gpt2, messages_csv)) == 0, "leftovers are no obstacle"
        assert not (work / ".lora_model.new").exists()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        # What tokenizers, safetensors and PyTorch raise.
        Exception("No space left on device (os error 28)"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:858] . PytorchStreamWriter failed writing file data/3"),
    ],
)
def test_a_full_disk_is_told_in_one_line(tmp_path, monkeypatch, capsys, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(gpt_classification_model, "train", fail)
    assert run_here(tmp_path, []) == 1
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error: ")]
    assert told == [
        "Error: ./results or lora_model and training_metrics.pdf: cannot be written: No space left on device"
    ]


def test_a_mistake_in_the_code_is_no_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(gpt_classification_model, "train", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_here(tmp_path, [])


@pytest.mark.parametrize("target", ["lora_model", "results/metrics.json"])
def test_two_trainings_do_not_write_into_one_folder(tmp_path, train, capsys, target):
    with exclusive(tmp_path / target):
        assert train() == 1
    assert f"{target} is being written by another process" in capsys.readouterr().err
    assert not (tmp_path / "lora_model").exists()


@pytest.mark.parametrize("steps", [[], [10], [10, 20]])
def test_charts_are_drawn_for_any_history(tmp_path, steps):
    history = [{"step": step, "eval_loss": 1 / step, "eval_accuracy": 0.9} for step in steps]
    history += [{"step": step, "loss": 1 / step, "train_accuracy": 1.0} for step in steps[1:]]
    plot_metrics(history, tmp_path / "charts.pdf", "gpt2 + LoRA", best_step=10)
    content = (tmp_path / "charts.pdf").read_bytes()
    assert content.startswith(b"%PDF") and b"/Count 1 " in content, "one page"
    assert b"/Subtype /Image" not in content, "vectors only"


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Draw the charts of a log history and return their axes."""
    pages, save = [], PdfPages.savefig
    monkeypatch.setattr(PdfPages, "savefig", lambda self, figure: pages.append(figure) or save(self, figure))

    def draw(history: list[dict], **options) -> list[Axes]:
        plot_metrics(history, tmp_path / "charts.pdf", **options)
        return pages.pop().axes

    return draw


def test_the_accuracy_chart_shows_all_from_0_to_1_and_enlarges_the_top(drawn):
    history = [{"step": 0, "eval_accuracy": 0.1, "train_accuracy": 0.2}]
    history += [{"step": step, "eval_accuracy": 0.97, "train_accuracy": 0.99} for step in (10, 20, 30)]
    accuracy, loss = drawn(history, best_step=20)
    assert accuracy.get_ylim()[0] == 0 and accuracy.get_ylim()[1] >= 1
    (inset,) = [child for child in accuracy.child_axes if child.lines]
    assert inset.get_ylim()[0] == 0.9 and inset.get_xlim()[0] < 10 < 30 < inset.get_xlim()[1]
    assert not [child for child in loss.child_axes if child.lines]
    assert [line.get_xdata()[0] for line in inset.lines] == [0, 0, 20], "both curves and the best checkpoint"
    history[2]["eval_accuracy"] = 0.5
    assert not drawn(history)[0].child_axes, "an enlargement would hide what is low"
    history = [entry | {"eval_accuracy": 0.8} for entry in history]
    assert not drawn(history)[0].child_axes, "an enlargement would show what is learned by heart alone"


def test_the_loss_chart_compares_losses_of_the_same_kind_once_per_step(drawn):
    history = [{"step": step, "loss": 9.0, "eval_loss": 0.3, "train_loss": 0.2} for step in (0, 25)]
    history += [
        {"step": 25, "eval_loss": 7.0, "train_loss": 7.0},
        {"step": 25, "train_loss": 5.0, "train_runtime": 1.0},
    ]
    train, validation = drawn(history)[1].lines
    assert train.get_xydata().tolist() == [[0, 0.2], [25, 0.2]]
    assert validation.get_xydata().tolist() == [[0, 0.3], [25, 0.3]]
    only_running = [{key: value for key, value in entry.items() if key != "train_loss"} for entry in history[:2]]
    assert drawn([*only_running, history[-1]])[1].lines[0].get_xydata().tolist() == [[0, 9], [25, 9]]


@pytest.mark.parametrize(("points", "marked"), [(12, True), (13, False)])
def test_many_points_have_no_markers(drawn, points, marked):
    history = [{"step": step, "eval_loss": 1, "eval_accuracy": 0.95} for step in range(points)]
    accuracy, loss = drawn(history)
    curves = [*accuracy.lines, *loss.lines, *accuracy.child_axes[0].lines]
    assert len(curves) == 3 and {line.get_markersize() > 0 for line in curves} == {marked}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LlamaConfig(num_hidden_layers=3), [(0, 2)]),
        (BertConfig(num_hidden_layers=3), [(0, 2)]),
        # PEFT cannot choose layers of these, and says so in an error; the model card's code is right for them.
        (GPT2Config(n_layer=3), None),
        (DistilBertConfig(n_layers=3), None),
        (LlamaConfig(num_hidden_layers=2), None),
    ],
    ids=lambda value: f"{value.model_type}-{value.num_hidden_layers}" if hasattr(value, "model_type") else "",
)
def test_layers_that_an_adapter_uses_are_saved_where_peft_can_choose_them(tmp_path, config, expected):
    config.save_pretrained(tmp_path)
    assert kept_layers(tmp_path, 2) == expected
