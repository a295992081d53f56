"""The `Trainer`: which messages an epoch takes, in what order, and what the console shows."""

import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch.utils.data import ConcatDataset, Dataset, Sampler, Subset
from tqdm import tqdm
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler

from text_classifier.training.config import DataArguments
from text_classifier.training.data import EXTRA_SPLITS, read_again, splits_learned_from
from text_classifier.training.runs import messages_per_step

# The curves of training are measured on at most this many messages, of training and of validation. Measuring on all of
# them would take a large part of the run; with 35,000 reviews it would take longer than training.
CURVE_MESSAGES = 128


class LengthGroups(LengthGroupedSampler):
    """Trainer's own length grouping, except that the groups are shuffled and that an epoch can be repeated.

    The order depends only on seed and epoch, so a resumed run sees the same order, and so do all processes of a
    distributed run. A group has the messages of one optimizer step, over all devices.
    """

    def __init__(self, dataset: Dataset, group_size: int, seed: int):
        super().__init__(group_size, dataset)
        self.seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, from 0; `Trainer` calls this before each one."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = list(super().__iter__())
        # Trainer's groups come longest first. Spam is long, so many steps of spam would come before those of ham, and
        # the ham would undo what the spam taught.
        groups = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        # The last group may be smaller, so it stays last.
        full = len(order) // self.batch_size
        shuffled = torch.randperm(full, generator=self.generator).tolist() + list(range(full, len(groups)))
        return iter([index for number in shuffled for index in groups[number]])


def length_order(dataset: Dataset) -> list[int]:
    """Return the indices of tokenised messages from shortest to longest, so that batches need almost no padding."""
    return sorted(range(len(dataset)), key=lambda index: len(dataset[index]["input_ids"]))


class ClassificationTrainer(Trainer):
    """A `Trainer` that groups training messages by length and evaluates messages sorted by length."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # Classifiers take any keyword, so Trainer believes that they divide their loss by the number of messages of the
        # whole step. They do not: losses and gradients would be multiplied by processes and accumulation steps.
        self.model_accepts_loss_kwargs = False
        # A new head needs some hundred steps, however few messages there are (Mosbach et al. 2021, "On the Stability of
        # Fine-tuning BERT"), so a small file is read more often.
        steps = math.ceil(len(self.train_dataset) / messages_per_step(self.args))
        self.args.num_train_epochs = max(self.args.num_train_epochs, self.args.min_steps / steps)

    def train(self, *args, **kwargs):
        """Train, also after an evaluation, as `Trainer.train` does."""
        # accelerate prepares a model once. After an evaluation, several processes would train without exchanging
        # gradients, and each would end with weights of its own.
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        self.accelerator._models.clear()
        self.model._is_accelerate_prepared = False
        return super().train(*args, **kwargs)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int]:
        return LengthGroups(self.train_dataset, messages_per_step(self.args), self.args.seed)

    def _get_eval_sampler(self, eval_dataset: Dataset) -> list[int]:
        return length_order(eval_dataset)


def training_set(datasets: dict[str, Dataset], data_args: DataArguments) -> Dataset:
    """Return what an epoch takes: every message once, and again those that `read_again` names.

    Args:
        datasets: split name -> dataset with `labels`.
    """
    parts = [datasets[name] for name in splits_learned_from(data_args)]
    extra = [datasets[name] for name in EXTRA_SPLITS if name in datasets]
    again = read_again([label for part in parts for label in part.labels], data_args.minority_repeats)
    return ConcatDataset([*parts, Subset(ConcatDataset(parts), again), *extra])


def curve_messages(
    datasets: dict[str, Dataset], data_args: DataArguments, args: TrainingArguments, of: Literal["train", "validation"]
) -> Dataset:
    """Return messages to measure a curve on; both curves have the class ratio of training, without extra messages."""
    messages = ConcatDataset([datasets[name.replace("train", of)] for name in splits_learned_from(data_args)])
    if of == "validation" and args.load_best_model_at_end:
        return messages  # checkpoints are compared on them, and a sample would be too few
    order = torch.randperm(len(messages), generator=torch.Generator().manual_seed(args.seed))
    return Subset(messages, order[:CURVE_MESSAGES].tolist())


# ---------------------------------------------------------------------------- what the console shows


class ConsoleCallback(ProgressCallback):
    """One bar with the loss and the validation accuracy; transformers' own writes whole dictionaries and more bars."""

    def on_train_begin(self, args, state, control, **kwargs):
        self.current_step = 0
        if state.is_world_process_zero:
            self.training_bar = tqdm(
                total=state.max_steps, desc="Training", unit=" steps", dynamic_ncols=True, disable=args.disable_tqdm
            )

    def on_prediction_step(self, args, state, control, eval_dataloader=None, **kwargs):
        # The training bar stays the only one while there is one.
        if self.training_bar is None and state.is_world_process_zero:
            if self.prediction_bar is None:
                options = {"desc": "Evaluating", "unit": " batches", "leave": False, "disable": args.disable_tqdm}
                self.prediction_bar = tqdm(total=len(eval_dataloader), dynamic_ncols=True, **options)
            self.prediction_bar.update()

    def on_log(self, args, state, control, logs=None, **kwargs):
        if self.training_bar is None:
            return
        if "loss" in logs:
            self.training_bar.set_postfix_str(f"loss {logs['loss']:.3f}")
        # Pretraining has no accuracy, and writes lines of its own with samples.
        if "eval_accuracy" in logs:
            self.training_bar.write(
                f"Step {state.global_step:,} of {state.max_steps:,}: validation loss {logs['eval_loss']:.3f}, "
                f"accuracy {100 * logs['eval_accuracy']:.1f} %"
            )


def use_console(trainer: Trainer) -> None:
    """Let `ConsoleCallback` report in place of transformers' callbacks for consoles; in a notebook, its table stays."""
    replaced = [trainer.pop_callback(usual) for usual in (ProgressCallback, PrinterCallback)]
    if any(replaced):
        trainer.add_callback(ConsoleCallback())
