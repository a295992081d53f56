"""Recipes set the options, flags override them, and mistakes are reported."""

import pytest
from shared import REPOSITORY

import gpt_classification_model
import gpt_pretraining
from text_classifier.training.config import DEFAULT_RECIPE, parse_arguments


def test_default_recipe_has_the_documented_values(capsys):
    model, data, training = parse_arguments([])
    assert (model.model_name_or_path, model.lora_r) == ("gpt2", 8)
    assert data.max_length == 512 and training.seed == 123
    assert training.per_device_train_batch_size == training.per_device_eval_batch_size == 16
    assert training.eval_steps == training.logging_steps == 60
    assert training.lr_scheduler_type == "cosine" and training.warmup_steps == 0.1 and training.max_grad_norm == 1.0
    assert training.output_dir == "./results" and training.report_to == []
    assert not training.load_best_model_at_end, "the last step's weights are kept"


def test_the_published_recipe_has_the_published_values():
    model, data, training = parse_arguments([str(REPOSITORY / "recipes/sms_spam_gpt2_published.yaml")])
    assert (model.lora_r, model.lora_dropout, model.fallback_layers) == (8, 0.1, None)
    assert data.protocol == "original" and not data.minority_repeats and not data.normalize_text
    assert (training.num_train_epochs, training.learning_rate) == (5, 1e-4)


@pytest.mark.parametrize("recipe", sorted((REPOSITORY / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_in_the_repository_is_valid(recipe):
    script = gpt_pretraining if recipe.stem.startswith("gpt_pretraining") else gpt_classification_model
    *_, training = script.parse_arguments([str(recipe)])
    published = recipe.stem.endswith("published")
    assert training.load_best_model_at_end == (recipe != DEFAULT_RECIPE)
    assert training.greater_is_better == published
    assert training.metric_for_best_model == ("accuracy" if published else "eval_loss")


def test_flags_override_a_recipe(tmp_path, capsys):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("lora_r: 4\nlearning_rate: 1e-3\noutput_dir: out\nfallback_model: some/model\n")
    model, _, training = parse_arguments(
        [str(recipe), "--lora_r", "2", "--target_modules", "c_attn", "--fallback_model", "none"]
    )
    assert (model.lora_r, model.target_modules, model.fallback_model) == (2, ["c_attn"], None)
    assert training.learning_rate == 1e-3
    recipe.write_text("lora_rank: 4\n")
    mistyped = tmp_path / "mistyped.yaml"
    mistyped.write_text("protocol: orignal\n")
    for argv, message in (
        ([str(recipe)], "lora_rank"),
        (["--no_such_flag", "1"], "no_such_flag"),
        (["--num_train_epoch", "2"], "num_train_epoch"),
        (["missing.yaml"], "missing.yaml"),
        ([str(mistyped)], "orignal"),
        (["--load_best_model_at_end", "true", "--eval_steps", "50"], "eval"),
    ):
        with pytest.raises(SystemExit) as caught:
            parse_arguments(argv)
        assert caught.value.code == 2 and message in capsys.readouterr().err


def test_help_has_a_line_for_each_option_that_people_set(capsys):
    def shown(flag: str) -> str:
        with pytest.raises(SystemExit) as caught:
            parse_arguments([flag])
        assert caught.value.code == 0
        return capsys.readouterr().out

    lines = shown("--help").splitlines()
    assert len(lines) <= 60 and max(map(len, lines)) <= 120
    assert "  --lora_r                       Rank of the LoRA matrices. [8]" in lines
    assert any(line.startswith("  --learning_rate") and line.endswith("[0.001]") for line in lines), "as in the recipe"
    everything = shown("--help_all")
    for option in ("--lora_r", "--left_out_kinds", "--learning_rate", "--adam_beta1"):
        assert option in everything


def test_a_run_on_an_own_file_leaves_the_included_adapter_alone():
    _, data, training = parse_arguments(["--data_file", "my/mails.csv"])
    assert (training.output_dir, training.adapter_dir) == ("results/mails", "results/mails/model")
    assert training.metrics_pdf == "results/mails/training_metrics.pdf"
    assert data.dataset_dir == "results/mails/dataset"
    _, _, training = parse_arguments(["--data-file=my/mails.csv", "--adapter_dir", "lora_model"])
    assert (training.output_dir, training.adapter_dir) == ("results/mails", "lora_model")
    _, _, training = parse_arguments([str(DEFAULT_RECIPE), "--data_file", "my/mails.csv"])
    assert (training.adapter_dir, training.min_steps) == ("results/mails/model", 300), "the default recipe, named"
    _, data, training = parse_arguments([])
    assert (training.output_dir, training.adapter_dir, data.dataset_dir) == ("./results", "lora_model", "dataset")
    _, _, training = parse_arguments([str(REPOSITORY / "recipes/imdb_distilbert.yaml"), "--data_file", "mails.csv"])
    assert training.adapter_dir == "results/imdb_distilbert/model"


def test_a_small_own_file_is_read_until_there_are_enough_steps_unless_the_epochs_are_named():
    assert parse_arguments(["--data_file", "mails.csv"])[2].min_steps == 300
    for argv in ([], ["--data_file", "mails.csv", "--num_train_epochs=1"]):
        assert parse_arguments(argv)[2].min_steps == 0
