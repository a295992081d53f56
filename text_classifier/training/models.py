"""Load base models and tokenizers, and prepare them for training."""

import logging
import re
from collections.abc import Sequence

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from tokenizers import normalizers, processors
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.pytorch_utils import Conv1D

from text_classifier.errors import ConfigurationError
from text_classifier.merged import quiet_loading
from text_classifier.sources.weights import BaseModel
from text_classifier.text import make_normalizer

logger = logging.getLogger(__name__)

# How architectures name what stands between their last block and the head. DeBERTa's `LayerNorm` stands before them.
# The order in which modules are defined does not tell: OPT defines its final norm before its blocks.
AFTER_BLOCKS = re.compile("(final_)?(layer_?)?norm|ln_f|norm_f|project_out|pooler")


def load_tokenizer(base: BaseModel, max_length: int, normalize_text: bool = False) -> PreTrainedTokenizerBase:
    """Load the base model's tokenizer, with a first token, a pad token and a normalizer, which are saved with it.

    So plain PEFT and `pipeline` read messages as training did.

    Args:
        max_length: number of tokens of a message that the model reads; fewer if the base model cannot read so many.
        normalize_text: undo letter tricks before tokenising.
    """
    limit = getattr(AutoConfig.from_pretrained(base.path), "max_position_embeddings", None) or max_length
    if limit < max_length:
        logger.info("%s reads at most %d tokens of a message.", base.name, limit)
        max_length = limit
    tokenizer = AutoTokenizer.from_pretrained(base.path, padding_side="right", model_max_length=max_length)
    # A decoder's first position draws most attention, and what stands there is hardly read: without a token in front,
    # all messages of one token got the same answer. So a tokenizer that adds no token of its own gets the
    # beginning-of-text token in front of each message (GPT-2: `<|endoftext|>`).
    first = tokenizer.bos_token or tokenizer.eos_token
    needs_first = first is not None and not tokenizer.num_special_tokens_to_add()
    if needs_first or normalize_text:
        backend = tokenizer.backend_tokenizer
        if needs_first:
            special = [(first, tokenizer.convert_tokens_to_ids(first))]
            add_first = processors.TemplateProcessing(single=[first, "$A"], special_tokens=special)
            # The post-processor of a byte-level tokenizer corrects the offsets of the words.
            backend.post_processor = processors.Sequence(list(filter(None, [backend.post_processor, add_first])))
        if normalize_text:
            backend.normalizer = normalizers.Sequence(list(filter(None, [make_normalizer(), backend.normalizer])))
        # GPT-2's own class is built from the vocabulary alone, so it would lose both when it is loaded.
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=backend,
            padding_side="right",
            model_max_length=max_length,
            model_input_names=tokenizer.model_input_names,
            **tokenizer.special_tokens_map,
        )
    # A decoder gives its answer at the last token that is not padding, so padding must differ from text.
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_with_new_head(
    base: BaseModel, tokenizer: PreTrainedTokenizerBase, label_names: Sequence[str], layers: int | None
) -> tuple[PreTrainedModel, list[str]]:
    """Load the base model's weights in float32 as a classifier of two classes; its head gets random weights.

    Args:
        layers: keep only so many layers, the first ones; None: all.

    Returns:
        The model and the names of the modules to train in full: the head, and the pooler if the checkpoint has none,
        because predicting words needs none.

    Raises:
        ConfigurationError: the weights do not fit the architecture, or other weights are missing.
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
    if getattr(config, "activation_function", None) == "gelu_new":
        # transformers computes GPT-2's own in eight steps, each through memory; this is the same function in one step.
        config.activation_function = "gelu_pytorch_tanh"
    # On a CPU, fused attention has the slower backward pass for batches of short messages.
    attention = None if torch.accelerator.is_available() else "eager"
    try:
        with quiet_loading():
            options = {"config": config, "dtype": torch.float32, "attn_implementation": attention}
            model, loading = AutoModelForSequenceClassification.from_pretrained(
                base.path, output_loading_info=True, **options
            )
    except (ValueError, RuntimeError) as error:
        raise ConfigurationError(f"{base.name} cannot be tuned: {error}") from error
    body = model.base_model_prefix
    trained = [name for name, child in model.named_children() if name != body and list(child.parameters())]
    missing, pooler = loading["missing_keys"], f"{body}.pooler"
    if any(key.startswith(f"{pooler}.") for key in missing):
        trained.append(pooler)
    if lacking := sorted(key for key in missing if not key.startswith(tuple(f"{name}." for name in trained))):
        raise ConfigurationError(f"{base.name} lacks weights of its architecture: {', '.join(lacking[:5])} …")
    return model, trained


def find_blocks(model: PreTrainedModel) -> str:
    """Return the name of the list of transformer blocks: the longest `ModuleList` that is not inside another one."""
    lengths: dict[str, int] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and not name.startswith(tuple(f"{outer}." for outer in lengths)):
            lengths[name] = len(module)
    return max(lengths, key=lengths.get)


def modules_below(model: PreTrainedModel, layers: int | None) -> str | None:
    """Return the `exclude_modules` of a `LoraConfig` that adapts only the last `layers` blocks; None: all.

    Nothing below the adapted blocks is trained, so the backward pass ends there.
    """
    blocks = find_blocks(model)
    below = len(model.get_submodule(blocks)) - layers if layers else 0
    return rf"{re.escape(blocks)}\.({'|'.join(map(str, range(below)))})\..*" if below > 0 else None


def wrap_in_lora(model: PreTrainedModel, lora: LoraConfig, base: BaseModel) -> PeftModel:
    """Give a model the adapter that `lora` describes.

    Raises:
        ConfigurationError: the model does not have the layers to adapt.
    """
    # GPT-2's layers are Conv1D, which store their weights transposed.
    lora.fan_in_fan_out = any(isinstance(layer, Conv1D) for layer in model.modules())
    try:
        with quiet_loading():
            return get_peft_model(model, lora)
    except (ValueError, RuntimeError) as error:
        raise ConfigurationError(f"{base.name} cannot be tuned: {error}") from error


def freeze_all_but(model: PreTrainedModel, tuning: str, head: Sequence[str]) -> None:
    """Train only the `head`, or also the `last_block` or `last_two_blocks` and what runs after; freeze the rest."""
    trained = [model.get_submodule(name) for name in head]
    if tuning != "head":
        blocks = find_blocks(model)
        trained += model.get_submodule(blocks)[-2 if tuning == "last_two_blocks" else -1 :]
        for parent in (model.base_model, model.get_submodule(blocks.rpartition(".")[0])):
            trained += [child for name, child in parent.named_children() if AFTER_BLOCKS.fullmatch(name)]
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
