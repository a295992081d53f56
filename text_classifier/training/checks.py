"""Find options that cannot work within seconds, before data is read."""

import logging

from transformers import GPT2Config, GPT2ForSequenceClassification, Trainer, TrainingArguments
from transformers.integrations import is_tensorboard_available

from text_classifier.errors import ConfigurationError
from text_classifier.training.config import DataArguments, FineTuningArguments, ModelArguments

# What checkpoints can be compared by; see `gpt_classification_model.compute_metrics`.
METRICS = ("loss", "accuracy", "precision", "recall", "f1")

# Smallest and largest value of each option of both training scripts; None: no limit.
LIMITS = {
    "n_layer": (1, None),
    "n_head": (1, None),
    "n_embd": (1, None),
    "context_length": (2, None),
    "vocab_size": (257, None),
    "fallback_layers": (1, None),
    "lora_r": (1, None),
    "lora_layers": (1, None),
    "lora_dropout": (0, 1),
    "minority_repeats": (1, None),
    "split_seed": (0, 2**32 - 1),
    "max_length": (1, None),
    "target_false_positive_rate": (0, 1),
    "per_device_train_batch_size": (1, None),
    "per_device_eval_batch_size": (1, None),
    "gradient_accumulation_steps": (1, None),
    "learning_rate": (0, None),
    "weight_decay": (0, None),
    "max_grad_norm": (0, None),
    "warmup_steps": (0, None),
    "dataloader_num_workers": (0, None),
    "seed": (0, 2**32 - 1),
}


def check_options(model_args: ModelArguments, data_args: DataArguments, args: FineTuningArguments) -> None:
    """Check the options of a fine-tuning run.

    Raises:
        ConfigurationError: an option has a value that cannot work, alone, with the others or on this machine.
    """
    for options in (model_args, data_args, args):
        check_limits(options)
    metric = (args.metric_for_best_model or "loss").removeprefix("eval_")
    if metric not in METRICS:
        raise ConfigurationError(
            f"--metric_for_best_model {args.metric_for_best_model}: there are only {', '.join(METRICS)}."
        )
    check_training_arguments(args)


def check_limits(options: object) -> None:
    """Check that numbers lie within `LIMITS`.

    Raises:
        ConfigurationError: one does not.
    """
    for name, (least, most) in LIMITS.items():
        value = getattr(options, name, None)
        if value is None or (value >= least and (most is None or value <= most)):
            continue
        bounds = f"at least {least} is needed" if most is None else f"it must lie between {least} and {most}"
        raise ConfigurationError(f"--{name} {value}: {bounds}.")


def check_training_arguments(args: TrainingArguments) -> None:
    """Try transformers' own options on a tiny model: trackers, optimizer, schedule, precision.

    Raises:
        ConfigurationError: something is missing, or does not go together.
    """
    if args.num_train_epochs <= 0 and args.max_steps <= 0:
        raise ConfigurationError(f"--num_train_epochs {args.num_train_epochs:g}: it must be above 0.")
    if "tensorboard" in args.report_to and not is_tensorboard_available():
        raise ConfigurationError("--report_to tensorboard needs it: pip install -r requirements/tensorboard.txt")
    try:
        tiny = GPT2Config(vocab_size=2, n_positions=2, n_embd=2, n_layer=1, n_head=1, bos_token_id=0, eos_token_id=0)
        trainer = Trainer(GPT2ForSequenceClassification(tiny), args, train_dataset=[0], eval_dataset=[0])
        trainer.create_optimizer_and_scheduler(num_training_steps=10)
    # Each integration raises what it likes; all of it means that these options do not work here.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        logging.getLogger(__name__).debug("An option cannot work", exc_info=True)
        raise ConfigurationError(f"These options cannot work here: {reason}") from error
