"""A classifier with weights of 8 bits, run by OpenVINO: faster on CPUs, and with other rounding.

An extra, for `text_classifier.py --int8`; `benchmarks/scoring.py` measures what it gains and how many labels change.
"""

import logging
import warnings

import nncf
import openvino
import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from text_classifier.inference import fast_dtype, quiet_loading


class Int8Model:
    """Stands in for a model in `text_classifier.classify`.

    Weights are stored as 8-bit integers, one scale and zero point for each row; activations are rounded on the fly.

    Args:
        model: a classifier in float32; not to be used afterwards.
    """

    # More than plain PyTorch reads at a time: here the cores are idle for longer between batches.
    batch_tokens = 1024
    device = torch.device("cpu")

    def __init__(self, model: PreTrainedModel):
        self.config = model.config
        self.tfidf = model.tfidf
        model.config.use_cache = False
        example = torch.ones(2, 3, dtype=torch.long)
        with quiet_loading(), warnings.catch_warnings():
            # OpenVINO traces, which PyTorch would do otherwise now, and warns of every branch: they are the same
            # for all batches.
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
            warnings.filterwarnings("ignore", message=r"`torch\.jit\.trace", category=DeprecationWarning)
            converted = openvino.convert_model(model, example_input={"input_ids": example, "attention_mask": example})
        nncf.set_log_level(logging.ERROR)
        precision = "bf16" if fast_dtype() is torch.bfloat16 else "f32"
        options = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        self.compiled = openvino.compile_model(nncf.compress_weights(converted), "CPU", options)

    def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_) -> SequenceClassifierOutput:
        """Return the logits, shape (n, 2), of n padded messages."""
        answer = self.compiled({"input_ids": input_ids.numpy(), "attention_mask": attention_mask.numpy()})
        return SequenceClassifierOutput(logits=torch.from_numpy(answer[0]))
