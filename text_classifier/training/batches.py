"""Choose the messages of each epoch and their order, and alter them."""

import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import ConcatDataset, Dataset, Sampler, Subset
from transformers import PreTrainedTokenizerBase, Trainer, TrainingArguments
from transformers.trainer_pt_utils import get_length_grouped_indices

from text_classifier.inference import encode
from text_classifier.training.config import DataArguments
from text_classifier.training.rivals import sure_messages, weight_of
from text_classifier.training.text_noise import add_noise

# Extra splits to train on, and the share of each that an epoch takes. An epoch takes only some of the present-day
# messages, because they contain many notices. The collection's spam about ringtones and downloads reads like a notice,
# and with all present-day messages in every epoch, the model would learn to call it ham.
EXTRA_SPLITS = {"present_day": 0.4, "chinese": 1.0, "feedback": 1.0}


@dataclass(frozen=True)
class Epoch:
    """What an epoch takes of the data, by the names of splits."""

    drawn_from: tuple[str, ...]
    """Splits whose messages it draws from."""
    as_many_as: tuple[str, ...]
    """Splits that together hold as many messages of each label as it takes (before `minority_repeats`)."""
    validated_on: tuple[str, ...]
    """Splits that checkpoints are compared on; they have the class ratio of the epoch."""


# By `DataArguments.majority`. `train` is balanced; the left-out messages are all of the larger class.
EPOCHS = {
    "same": Epoch(("train",), ("train",), ("validation",)),
    "fresh": Epoch(("train", "left_out_train"), ("train",), ("validation",)),
    "all": Epoch(("train", "left_out_train"), ("train", "left_out_train"), ("validation", "left_out_validation")),
}

# Accuracy on training messages is measured on at most this many. Predicting all of them at every evaluation takes a
# large part of a run; with 35,000 reviews it takes longer than training on them.
TRAIN_ACCURACY_MESSAGES = 256


class FreshSampler(Sampler[int]):
    """Draw a fixed number of messages from each pool every epoch, messages of similar length together.

    If a pool has more messages than an epoch draws, the next epoch takes those that no epoch took yet, until all were
    taken. The order depends only on seed and epoch, so a resumed run and all processes of a distributed run see the
    same order.

    Args:
        pools: pool of each message, shape (n,): its label, or another name if it is drawn separately.
        lengths: number of tokens of each message, shape (n,).
        draws: pool -> how many of its messages an epoch takes.
        group_size: messages of one optimizer step, over all devices.
    """

    def __init__(
        self,
        pools: Sequence[int | str],
        lengths: Sequence[int],
        draws: dict[int | str, int],
        group_size: int,
        seed: int,
    ):
        generator = torch.Generator().manual_seed(seed)
        members = {pool: [] for pool in draws}
        for index, pool in enumerate(pools):
            members[pool].append(index)
        self.walks = {
            pool: torch.tensor(of_pool, dtype=torch.long)[torch.randperm(len(of_pool), generator=generator)]
            for pool, of_pool in members.items()
        }
        self.lengths, self.draws, self.group_size, self.seed = lengths, draws, group_size, seed
        # In shared memory, so that data-loader workers that stay alive see the epoch change.
        self._epoch = torch.zeros((), dtype=torch.long).share_memory_()

    @property
    def epoch(self) -> int:
        """The epoch that is drawn, from 0."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; `Trainer` calls this before each one."""
        self._epoch.fill_(int(epoch))

    def __len__(self) -> int:
        return sum(self.draws.values())

    def __iter__(self) -> Iterator[int]:
        drawn = []
        for pool, walk in self.walks.items():
            first = self.epoch * self.draws[pool]
            drawn += walk[torch.arange(first, first + self.draws[pool]) % len(walk)].tolist()
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        lengths = [self.lengths[index] for index in drawn]
        order = get_length_grouped_indices(lengths, self.group_size, generator=generator)
        groups = [order[start : start + self.group_size] for start in range(0, len(order), self.group_size)]
        # The groups come longest first, and spam is long, so they are shuffled. Otherwise a hundred steps of spam
        # would come before the steps of ham, and the ham would undo what the spam taught.
        full = len(order) // self.group_size
        shuffled = torch.randperm(full, generator=generator).tolist() + list(range(full, len(groups)))
        return iter([drawn[index] for number in shuffled for index in groups[number]])


class TextNoise(Dataset):
    """Replace some training messages by noisy variants (`text_noise.add_noise`), by new ones every epoch.

    Args:
        dataset: tokenised messages.
        texts: the same messages, not tokenised.
        share: probability that a message is replaced.
        tokenizer: tokenises the variants.
        sampler: says which epoch it is.
    """

    def __init__(
        self,
        dataset: Dataset,
        texts: Sequence[str],
        share: float,
        tokenizer: PreTrainedTokenizerBase,
        sampler: FreshSampler,
        seed: int,
    ):
        self.dataset, self.texts, self.share, self.tokenizer = dataset, texts, share, tokenizer
        self.sampler, self.seed = sampler, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        message = self.dataset[index]
        draw = random.Random(f"{self.seed} {self.sampler.epoch} {index}")
        if draw.random() >= self.share:
            return message
        other = encode([add_noise(self.texts[index], draw)], self.tokenizer, self.tokenizer.model_max_length)
        return {name: values[0] for name, values in other.items()} | {"labels": message["labels"]}


class TokenDropout(Dataset):
    """Drop random tokens of training messages, different ones every epoch; special tokens stay.

    The model soon knows a few hundred spam messages by heart, and then it calls any message unlike them ham. Random
    deletion keeps the model from learning whole messages (EDA, Wei and Zou 2019, https://arxiv.org/abs/1901.11196).
    Only seed, epoch and message determine which tokens are dropped.

    Args:
        dataset: tokenised messages.
        share: probability that a token is dropped.
        tokenizer: says which tokens are special.
        sampler: says which epoch it is.
    """

    def __init__(
        self, dataset: Dataset, share: float, tokenizer: PreTrainedTokenizerBase, sampler: FreshSampler, seed: int
    ):
        self.dataset, self.share, self.tokenizer, self.sampler, self.seed = dataset, share, tokenizer, sampler, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        message = self.dataset[index]
        draw = (self.seed * 1_000 + self.sampler.epoch) * 1_000_000 + index
        chances = torch.rand(len(message["input_ids"]), generator=torch.Generator().manual_seed(draw))
        special = self.tokenizer.get_special_tokens_mask(message["input_ids"], already_has_special_tokens=True)
        kept = (chances >= self.share) | torch.tensor(special, dtype=torch.bool)
        # Keep at least one token, because an empty message has no class.
        kept[chances.argmax()] = True
        return {
            name: [value for value, keep in zip(values, kept, strict=True) if keep] if name != "labels" else values
            for name, values in message.items()
        }


def length_order(dataset: Dataset) -> list[int]:
    """Return the indices of tokenised messages from shortest to longest, so that batches need almost no padding."""
    return sorted(range(len(dataset)), key=lambda index: len(dataset[index]["input_ids"]))


class ClassificationTrainer(Trainer):
    """A `Trainer` that takes training batches from `train_sampler` and evaluates messages sorted by length."""

    train_sampler: Sampler[int]

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int]:
        return self.train_sampler

    def _get_eval_sampler(self, eval_dataset: Dataset) -> list[int]:
        return length_order(eval_dataset)


# ---------------------------------------------------------------------------- what an epoch takes


def plan_draws(datasets: dict[str, Dataset], data_args: DataArguments) -> tuple[list[Dataset], list, dict]:
    """Decide which messages an epoch takes.

    Args:
        datasets: split name -> dataset with `labels`.

    Returns:
        The splits to draw from, the pool of each of their messages, and how many messages an epoch draws from each
        pool. Each label is a pool. In `EXTRA_SPLITS`, each label of each split is a pool of its own.
    """
    epoch = EPOCHS[data_args.majority]
    parts = [datasets[name] for name in epoch.drawn_from]
    pools = [label for part in parts for label in part.labels]
    counts = Counter(label for name in epoch.as_many_as for label in datasets[name].labels)
    draws = {label: counts[label] for label in sorted(counts)}
    if data_args.majority == "all":
        smaller = min(draws, key=draws.get)
        draws[smaller] = min(draws[smaller] * data_args.minority_repeats, max(draws.values()))
    for name, share in EXTRA_SPLITS.items():
        if name in datasets:
            parts.append(datasets[name])
            pools_of_part = [f"{name} {label}" for label in datasets[name].labels]
            pools += pools_of_part
            draws |= {pool: math.ceil(size * share) for pool, size in Counter(pools_of_part).items()}
    if data_args.majority == "all" and data_args.sure_share < 1:
        pools, draws = _fewer_sure(parts, pools, draws, data_args.sure_share)
    return parts, pools, draws


def _fewer_sure(parts: list[Dataset], pools: list, draws: dict, share: float) -> tuple[list[str], dict[str, int]]:
    """Divide each pool into messages that TF-IDF is sure of, of which an epoch takes only a share, and all others."""
    texts, labels = ([value for part in parts for value in getattr(part, name)] for name in ("texts", "labels"))
    times = {pool: draws[pool] / size for pool, size in Counter(pools).items()}
    divided, taken = [], {}
    # The pools of extra splits have the split's name and the label.
    weights = [weight_of(str(pool).partition(" ")[0], label) for pool, label in zip(pools, labels, strict=True)]
    for pool, sure in zip(pools, sure_messages(texts, labels, weights), strict=True):
        # What people corrected is learned in any case.
        sure = sure and not str(pool).startswith("feedback")
        name = f"{pool} sure" if sure else str(pool)
        divided.append(name)
        # A pool that an epoch takes only a part of is not cut twice.
        taken[name] = share * max(1, times[pool]) if sure else times[pool]
    return divided, {name: math.ceil(size * taken[name]) for name, size in Counter(divided).items()}


def make_training_set(
    datasets: dict[str, Dataset],
    tokenizer: PreTrainedTokenizerBase,
    data_args: DataArguments,
    args: TrainingArguments,
) -> tuple[Dataset, FreshSampler]:
    """Return the training messages, which are altered anew every epoch, and the sampler that draws them."""
    parts, pools, draws = plan_draws(datasets, data_args)
    sampler = FreshSampler(
        pools=pools,
        lengths=[length for part in parts for length in part.lengths],
        draws=draws,
        group_size=args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        seed=args.seed,
    )
    texts = [text for part in parts for text in part.texts]
    noisy = TextNoise(ConcatDataset(parts), texts, data_args.text_noise, tokenizer, sampler, args.seed)
    return TokenDropout(noisy, data_args.token_dropout, tokenizer, sampler, args.seed), sampler


def validation_set(datasets: dict[str, Dataset], majority: str) -> Dataset:
    """Return the messages that checkpoints are compared on."""
    return ConcatDataset([datasets[name] for name in EPOCHS[majority].validated_on])


def training_sample(datasets: dict[str, Dataset], majority: str, seed: int) -> Dataset:
    """Return at most `TRAIN_ACCURACY_MESSAGES` random training messages to measure accuracy on."""
    messages = ConcatDataset([datasets[name] for name in EPOCHS[majority].as_many_as])
    order = torch.randperm(len(messages), generator=torch.Generator().manual_seed(seed))
    return Subset(messages, order[:TRAIN_ACCURACY_MESSAGES].tolist())
