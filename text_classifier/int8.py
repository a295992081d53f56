"""Run a classifier with 8-bit weights in OpenVINO: it is faster on CPUs, and its probabilities differ a little.

`python -m text_classifier --int8` uses it, and requirements/int8.txt installs what it needs.
`python -m benchmarks.scoring` measures its speed and how many labels stay the same.
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
    """A model that `text_classifier.classify` accepts in place of a PyTorch model.

    Weights are stored as 8-bit integers, with one scale and one zero point per row. Activations are rounded while the
    model runs.

    Args:
        model: a classifier in float32 on the CPU; it must not be used afterwards.
    """

    # More than `inference._BATCH_TOKENS`, because here the cores are idle for longer between batches.
    batch_tokens = 1024
    device = torch.device("cpu")

    def __init__(self, model: PreTrainedModel):
        self.config = model.config
        self.tfidf = model.tfidf
        example = torch.ones(2, 3, dtype=torch.long)
        with quiet_loading(), warnings.catch_warnings():
            # OpenVINO uses PyTorch's tracing, which is deprecated. Tracing also warns that other inputs could take
            # other branches of the code, but all batches take the same ones.
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
            warnings.filterwarnings("ignore", message=r"`torch\.jit\.trace", category=DeprecationWarning)
            converted = openvino.convert_model(model, example_input={"input_ids": example, "attention_mask": example})
        nncf.set_log_level(logging.ERROR)
        precision = "bf16" if fast_dtype(self.device) is torch.bfloat16 else "f32"
        options = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        self.compiled = openvino.compile_model(nncf.compress_weights(converted), "CPU", options)

    def __call__(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_) -> SequenceClassifierOutput:
        """Return the logits, shape (n, 2), of n padded messages."""
        answer = self.compiled({"input_ids": input_ids.numpy(), "attention_mask": attention_mask.numpy()})
        return SequenceClassifierOutput(logits=torch.from_numpy(answer[0]))
