"""How a model runs: its device, its number format, and the batches in which it reads messages."""

import os
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

from text_classifier.text import replace_half_surrogates

# Tokens of one batch on a CPU. Smaller batches leave its cores idle. Larger batches are slower too, because attention
# between different messages is computed and then thrown away.
_BATCH_TOKENS = 256
# Tokens of one batch on an accelerator, whose units need more to be busy. In longer rows, attention takes more
# operations than the rest of the model: both take the same at six times the hidden size, 4,608 tokens for GPT-2 small.
_ACCELERATOR_BATCH_TOKENS = 4096

# Decoders whose classification head reads the last token of a message, so that messages can stand end to end in one
# row, without padding.
_PACKABLE = ("gpt2", "llama")


def encode(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int | None = None) -> BatchEncoding:
    """Tokenise n messages. Training and serving both call this function, so the model always reads the same tokens.

    Args:
        max_length: cut each message after this many tokens; None keeps it whole.

    Returns:
        `input_ids` and `attention_mask`: n lists each, not padded.
    """
    if not texts:
        return BatchEncoding({"input_ids": [], "attention_mask": []})
    texts = [replace_half_surrogates(text) for text in texts]
    # If a message spells out a special token such as <|endoftext|>, that is ordinary text.
    return tokenizer(texts, truncation=max_length is not None, max_length=max_length, split_special_tokens=True)


def choose_device() -> torch.device:
    """Return the device that classifies: the accelerator where there is one, else the CPU.

    The environment variable DEVICE overrides this. `cpu` forbids the accelerator, `cuda:1` names one of several; for a
    name that this machine does not have, ValueError is raised.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    devices = ["cpu"]
    if accelerator is not None:
        devices = [accelerator.type, "cpu"]
        devices += [f"{accelerator.type}:{index}" for index in range(torch.accelerator.device_count())]
    name = os.environ.get("DEVICE") or devices[0]
    if name not in devices:
        raise ValueError(f"DEVICE={name}: this machine has {', '.join(sorted(devices))}.")
    return torch.device(name)


def limit_kernel_cache(number: int) -> None:
    """Set how many matrix products PyTorch and oneDNN keep prepared on a CPU; a number that the user has set stays.

    Each new shape of a product needs a kernel of its own, of about a megabyte. By default the last 1,024 are kept.
    Call this before the first product, because the variables are read then.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(number))
    os.environ.setdefault("LRU_CACHE_CAPACITY", str(number))


def fast_dtype(device: torch.device | None = None) -> torch.dtype:
    """Return the number format in which a device multiplies fastest; the labels stay the same.

    It is bfloat16 if the device has instructions for it: AVX-512 BF16 or AMX on a CPU, compute capability 8 on an
    NVIDIA GPU. Otherwise it is float32, because emulated bfloat16 is slower. `python -m benchmarks.scoring` measures
    the speed on CPUs and how many labels agree.
    """
    device = device or choose_device()
    if device.type == "cpu":
        instructions = torch.cpu.get_capabilities()
        native = instructions.get("avx512_bf16") or instructions.get("amx_bf16")
    else:
        # CUDA, ROCm and XPU tell. An accelerator that does not computes in float32.
        tells = getattr(torch.get_device_module(device), "is_bf16_supported", None)
        native = tells is not None and tells(including_emulation=False)
    return torch.bfloat16 if native else torch.float32


def read_log_odds(encoded: BatchEncoding, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> np.ndarray:
    """Return the language model's log odds of class 1 for n messages that `encode` encoded, shape (n,)."""
    packed = model.config.model_type in _PACKABLE
    batch_tokens = _BATCH_TOKENS if model.device.type == "cpu" else _ACCELERATOR_BATCH_TOKENS
    log_odds = np.empty(len(encoded["input_ids"]))
    for indices in _batches([len(ids) for ids in encoded["input_ids"]], batch_tokens):
        rows = {name: [values[index] for index in indices] for name, values in encoded.items()}
        with torch.inference_mode():
            if packed and len(indices) > 1:
                logits = _packed_logits(rows["input_ids"], model)
            else:
                logits = model(**tokenizer.pad(rows, return_tensors="pt").to(model.device)).logits
        logits = logits.float().cpu().numpy().astype(float)
        log_odds[indices] = logits[:, 1] - logits[:, 0]
    return log_odds


def _batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Yield batches of message indices; the messages of a batch have similar lengths.

    A batch has at most `batch_tokens` tokens after padding. A message longer than that is a batch of its own.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[index] > batch_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _packed_logits(input_ids: Sequence[Sequence[int]], model: PreTrainedModel) -> torch.Tensor:
    """Return the logits, shape (n, 2), of n messages that stand end to end in one row.

    Positions start at 0 again with each message. This tells transformers where a message begins, so that messages
    do not attend to each other.
    """
    ids = torch.tensor([[token for message in input_ids for token in message]]).to(model.device)
    positions = torch.tensor([[position for message in input_ids for position in range(len(message))]]).to(model.device)
    last = torch.tensor([len(message) for message in input_ids]).cumsum(0).to(model.device) - 1
    # Embeddings instead of ids: GPT-2 warns that ids, whose first is its pad token, lack a mask.
    embeddings = model.get_input_embeddings()(ids)
    hidden = model.base_model(inputs_embeds=embeddings, position_ids=positions, use_cache=False).last_hidden_state
    return model.score(hidden[0, last])
