"""How much faster than the classic recipe the batches are: `python benchmarks/training_speed.py`.

Trains GPT-2 small's architecture (124 M parameters, random weights: speed does not depend on their
values) with LoRA on the SMS Spam Collection's training split, with the same batch size, three ways:

- every message padded to 120 tokens, in random order, as tutorials do it;
- padded to the longest message of the batch, in random order;
- padded to the longest of the batch, messages of like length together: what this project does.

Each way runs the same number of steps in turn, several rounds, and the best round of each counts, so
that a busy moment of the machine falls on none of them. Printed: messages per second, and the ratio.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import ByteLevelBPETokenizer
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    GPT2Config,
    PreTrainedTokenizerFast,
)

from artifact_sources import ArtifactError, resolve_base_model
from gpt_classification_model import (
    LORA_TARGETS,
    DataArguments,
    FreshSampler,
    SpamDataset,
    load_splits,
    load_tokenizer,
)
from text_classifier import quiet_loading


def gpt2_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Return GPT-2's own tokenizer, or where the Hub cannot be reached one of its kind made from the texts."""
    try:
        return load_tokenizer(resolve_base_model("gpt2"), max_length=120)
    except ArtifactError:
        print("GPT-2's tokenizer cannot be reached; using a byte-level BPE trained on the messages.")
        bpe = ByteLevelBPETokenizer()
        bpe.train_from_iterator(texts, vocab_size=50257, special_tokens=["<|endoftext|>"], show_progress=False)
        end = "<|endoftext|>"
        return PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token=end, pad_token=end)


def messages_per_second(model: torch.nn.Module, loader: DataLoader, optimizer: torch.optim.Optimizer) -> float:
    """Train on all batches of a loader once and return the messages per second."""
    messages, started = 0, time.perf_counter()
    for batch in loader:
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        messages += len(batch["labels"])
    return messages / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--messages", type=int, default=192, help="messages a round trains on, a multiple of 16")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        splits, _, _ = load_splits(DataArguments(dataset_dir=folder))
        train = splits["train"].sample(options.messages, random_state=0)
        train.to_csv(Path(folder, "train.csv"), index=False)
        tokenizer = gpt2_tokenizer(splits["train"]["Text"].tolist())
        dataset = SpamDataset(Path(folder, "train.csv"), tokenizer, 120)
    print(f"{len(dataset)} messages a round, {sum(dataset.lengths) / len(dataset):.1f} tokens on average")

    torch.manual_seed(0)
    config = GPT2Config(num_labels=2, pad_token_id=tokenizer.pad_token_id)
    with quiet_loading():
        model = AutoModelForSequenceClassification.from_config(config)
        model = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=32, **LORA_TARGETS["gpt2"]))
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-4)

    draws = {label: dataset.labels.count(label) for label in (0, 1)}
    grouped = FreshSampler(dataset.labels, dataset.lengths, draws, group_size=16, seed=0)
    longest = DataCollatorWithPadding(tokenizer)
    to_120 = DataCollatorWithPadding(tokenizer, padding="max_length", max_length=120)
    loaders = {
        "padded to 120, random order": DataLoader(dataset, 16, shuffle=True, collate_fn=to_120),
        "padded to the longest, random order": DataLoader(dataset, 16, shuffle=True, collate_fn=longest),
        "padded to the longest, grouped by length": DataLoader(dataset, 16, sampler=grouped, collate_fn=longest),
    }
    messages_per_second(model, [next(iter(loaders["padded to 120, random order"]))], optimizer)
    best = dict.fromkeys(loaders, 0.0)
    for _ in range(options.rounds):
        for name, loader in loaders.items():
            best[name] = max(best[name], messages_per_second(model, loader, optimizer))

    slowest = best["padded to 120, random order"]
    print("\n| Batches | Messages/s | Ratio |\n| --- | ---: | ---: |")
    for name, speed in best.items():
        print(f"| {name} | {speed:.2f} | {speed / slowest:.2f} |")


if __name__ == "__main__":
    main()
