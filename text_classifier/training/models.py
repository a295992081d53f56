"""Load base models and tokenizers, and prepare them for training."""

import copy
from collections.abc import Sequence

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from tokenizers import normalizers
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.pytorch_utils import Conv1D

from text_classifier.characters import make_normalizer
from text_classifier.errors import ConfigurationError
from text_classifier.inference import quiet_loading
from text_classifier.sources.weights import BaseModel
from text_classifier.training.config import ModelArguments

# Activation functions that transformers computes in eight steps, each through memory -> the same in one step.
FUSED_ACTIVATIONS = {"gelu_new": "gelu_pytorch_tanh"}

# Where each architecture keeps its blocks, and the layers between the last block and the new layers.
BLOCKS = {
    "gpt2": ("transformer.h", ["transformer.ln_f"]),
    "llama": ("model.layers", ["model.norm"]),
    "distilbert": ("distilbert.transformer.layer", []),
    "bert": ("bert.encoder.layer", ["bert.pooler"]),
}


def load_tokenizer(base: BaseModel, max_length: int, normalize_text: bool = False) -> PreTrainedTokenizerBase:
    """Load the base model's tokenizer, which pads on the right.

    A classifier built on a decoder reads its answer at the last token that is not padding, so padding must differ from
    text. A tokenizer without a pad token pads with its end-of-text token.

    Args:
        max_length: number of tokens of a message that the model reads.
        normalize_text: undo letter tricks before tokenising; the normalizer is saved with the tokenizer.
    """
    tokenizer = AutoTokenizer.from_pretrained(base.path, padding_side="right", model_max_length=max_length)
    if normalize_text:
        backend = tokenizer.backend_tokenizer
        steps = [make_normalizer(), backend.normalizer] if backend.normalizer else [make_normalizer()]
        backend.normalizer = normalizers.Sequence(steps)
        # GPT-2's own class is built from the vocabulary alone, so it would lose the normalizer when it is loaded.
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


def make_config(
    base: BaseModel, tokenizer: PreTrainedTokenizerBase, label_names: Sequence[str], layers: int | None
) -> PreTrainedConfig:
    """Return the base model's config for two classes, with the faster one of two equal activations.

    Args:
        label_names: names of class 0 and class 1.
        layers: keep only this many layers, the first ones, at least 1; None keeps all.

    Raises:
        ConfigurationError: the base model reads fewer tokens than the tokenizer gives it.
    """
    config = AutoConfig.from_pretrained(
        base.path,
        num_labels=2,
        id2label=dict(enumerate(label_names)),
        label2id={name: number for number, name in enumerate(label_names)},
        pad_token_id=tokenizer.pad_token_id,
    )
    if layers is not None and layers < config.num_hidden_layers:
        config.num_hidden_layers = layers
        # Some architectures list the kind of every layer.
        for kinds in ("layer_types", "mlp_layer_types"):
            if of_all_layers := getattr(config, kinds, None):
                setattr(config, kinds, of_all_layers[:layers])
    if (activation := getattr(config, "activation_function", None)) in FUSED_ACTIVATIONS:
        config.activation_function = FUSED_ACTIVATIONS[activation]
    if tokenizer.model_max_length > (limit := getattr(config, "max_position_embeddings", float("inf"))):
        raise ConfigurationError(f"{base.name} reads at most {limit} tokens; lower --max_length.")
    return config


def load_with_new_head(base: BaseModel, config: PreTrainedConfig, head: Sequence[str]) -> PreTrainedModel:
    """Load the base model's weights in float32 and give it a new head with random weights.

    Args:
        head: names of the new layers.

    Raises:
        ConfigurationError: the weights do not fit the architecture, or weights outside the head are missing.
    """
    # On a CPU, fused attention has the slower backward pass for batches of short messages.
    attention = None if torch.accelerator.is_available() else "eager"
    try:
        with quiet_loading():
            model, loading = AutoModelForSequenceClassification.from_pretrained(
                base.path,
                config=config,
                dtype=torch.float32,
                attn_implementation=attention,
                output_loading_info=True,
            )
    except (ValueError, RuntimeError) as error:
        raise ConfigurationError(f"{base.name} cannot be tuned: {error}") from error
    if missing := [name for name in loading["missing_keys"] if name.split(".")[0] not in head]:
        raise ConfigurationError(f"{base.name} lacks weights of its architecture: {', '.join(sorted(missing)[:5])} …")
    return model


def choose_targets(usual: dict[str, dict], model_type: str, model_args: ModelArguments) -> dict:
    """Return what LoRA adapts in an architecture, as arguments of `LoraConfig`.

    Tunings without LoRA also read the names of the new layers from its `modules_to_save`.

    Args:
        usual: architecture -> its usual arguments of `LoraConfig`.
        model_type: the architecture, from the base model's config.

    Raises:
        ConfigurationError: the architecture is not listed and no `--target_modules` are given.
    """
    # Make a deep copy, because PEFT adds its own names to the list `modules_to_save`.
    targets = copy.deepcopy(usual.get(model_type, {"modules_to_save": ["score", "classifier"]}))
    if model_args.target_modules:
        targets["target_modules"] = model_args.target_modules
    if model_args.tuning == "lora" and "target_modules" not in targets:
        raise ConfigurationError(
            f"No LoRA layers are listed for the architecture {model_type!r} "
            f"(only for {', '.join(usual)}). Name them with --target_modules."
        )
    return targets


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Return the number of trained parameters and the number of all parameters."""
    weights = list(model.parameters())
    return sum(one.numel() for one in weights if one.requires_grad), sum(one.numel() for one in weights)


def freeze_all_but(model: PreTrainedModel, tuning: str, head: Sequence[str]) -> None:
    """Train only the new head, or also the last blocks and the layers after them; freeze all other weights.

    Args:
        tuning: `head`, `last_block` or `last_two_blocks`.
        head: names of the new layers.

    Raises:
        ConfigurationError: the architecture is not in `BLOCKS`.
    """
    if model.config.model_type not in BLOCKS:
        raise ConfigurationError(
            f"The blocks of the architecture {model.config.model_type!r} are not listed (only those of "
            f"{', '.join(BLOCKS)}). Use --tuning lora or full."
        )
    trained = [model.get_submodule(name) for name in head]
    if tuning != "head":
        blocks, after_blocks = BLOCKS[model.config.model_type]
        trained += [model.get_submodule(name) for name in after_blocks]
        trained += model.get_submodule(blocks)[-2 if tuning == "last_two_blocks" else -1 :]
    model.requires_grad_(False)
    for module in trained:
        module.requires_grad_(True)


def store_frozen_in_bfloat16(model: PeftModel) -> None:
    """Store frozen matrices in bfloat16, because mixed precision would convert them at every step.

    This changes no result. Do not use it if the model's own weights are saved, because they would lose precision.
    """
    for module in model.modules():
        if isinstance(module, (nn.Linear, Conv1D)) and not module.weight.requires_grad:
            module.weight.data = module.weight.data.to(torch.bfloat16)
        if isinstance(module, BaseTunerLayer):
            # PEFT would convert the input to float32, the format of the LoRA weights, and mixed precision would convert
            # it back.
            module.cast_input_dtype_enabled = False
