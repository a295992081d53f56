"""Base models and tokenizers, made ready to be trained."""

from collections.abc import Sequence

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from tokenizers import normalizers
from torch import nn
from transformers import (
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.pytorch_utils import Conv1D

from text_classifier.sources.weights import BaseModel
from text_classifier.training.text_noise import make_normalizer

# Activations that transformers computes in eight steps, each through memory, and their equals in one.
FUSED_ACTIVATIONS = {"gelu_new": "gelu_pytorch_tanh"}


# Where each architecture keeps its blocks, and what stands between the last one and the new layers.
BLOCKS = {
    "gpt2": ("transformer.h", ["transformer.ln_f"]),
    "llama": ("model.layers", ["model.norm"]),
    "distilbert": ("distilbert.transformer.layer", []),
    "bert": ("bert.encoder.layer", ["bert.pooler"]),
}


def load_tokenizer(base: BaseModel, max_length: int, normalize_text: bool = False) -> PreTrainedTokenizerBase:
    """Load the base's tokenizer, padding on the right; one without a pad token gets its end-of-text token.

    A classifier built on a decoder reads its answer at the last token that is not padding, so padding
    must be told from text; a tokenizer that has a pad token keeps it.

    Args:
        normalize_text: undo letter tricks in front of what the tokenizer does; it is saved with that.
    """
    tokenizer = AutoTokenizer.from_pretrained(base.path, padding_side="right", model_max_length=max_length)
    if normalize_text:
        backend = tokenizer.backend_tokenizer
        steps = [make_normalizer(), backend.normalizer] if backend.normalizer else [make_normalizer()]
        backend.normalizer = normalizers.Sequence(steps)
        # GPT-2's own class is built from the vocabulary alone and would forget the normalizer when it is loaded.
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=backend,
            padding_side="right",
            model_max_length=max_length,
            model_input_names=tokenizer.model_input_names,
            **tokenizer.special_tokens_map,
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def freeze_all_but(model: PreTrainedModel, tuning: str, head: Sequence[str]) -> None:
    """Train only the new head, or also what is close to it: the last blocks and what comes after them.

    Args:
        model: of an architecture in `BLOCKS`.
        tuning: `head`, `last_block` or `last_two_blocks`.
        head: names of the new layers.
    """
    trained = [model.get_submodule(name) for name in head]
    if tuning != "head":
        blocks, after_blocks = BLOCKS[model.config.model_type]
        trained += [model.get_submodule(name) for name in after_blocks]
        trained += model.get_submodule(blocks)[-2 if tuning == "last_two_blocks" else -1 :]
    model.requires_grad_(False)
    for module in trained:
        module.requires_grad_(True)


def store_frozen_in_bfloat16(model: PeftModel) -> None:
    """Keep what mixed precision would convert to bfloat16 at every step, the frozen matrices, in it from the start.

    That changes no result and saves the conversions. A model whose own weights are saved must not be stored so.
    """
    for module in model.modules():
        if isinstance(module, (nn.Linear, Conv1D)) and not module.weight.requires_grad:
            module.weight.data = module.weight.data.to(torch.bfloat16)
        if isinstance(module, BaseTunerLayer):
            # Nor need its input go to float32, that of the LoRA weights, and back.
            module.cast_input_dtype_enabled = False
