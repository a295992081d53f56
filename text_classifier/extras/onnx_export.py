"""Export a classifier to ONNX, and check that ONNX Runtime gives the same answers.

`python -m text_classifier.export --onnx` uses it, and requirements/onnx.txt installs what it needs.
"""

import csv
import logging
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import onnxscript.optimizer
import pandas as pd
import torch
from torch.export import Dim
from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Messages to compare on. What they say does not matter: the same numbers must come out for any message.
MESSAGES = Path(__file__).parents[2] / "dataset" / "modern_messages.tsv"

# Largest difference of two logits. Float32 sums in another order differ by some millionths.
TOLERANCE = 1e-3


class LogitsOnly(torch.nn.Module):
    """A classifier that takes and returns plain tensors."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return the logits, shape (n, 2), of n padded messages."""
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


def export_onnx(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    """Write a classifier as an ONNX file that takes batches of any size and length.

    Its inputs are `input_ids` and `attention_mask`, shape (n, tokens); its output is `logits`, shape (n, 2).

    Args:
        model: in float32 on the CPU.
        path: the .onnx to write, in a folder that exists.

    Raises:
        ValueError: ONNX Runtime gives other answers than the model.
    """
    example = tokenizer(["Two messages", "of two lengths"], padding=True, return_tensors="pt")
    inputs = {name: example[name] for name in ("input_ids", "attention_mask")}
    shape = {0: Dim("messages"), 1: Dim("tokens")}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # PyTorch's own: a deprecated name, and that both inputs have the same shape.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            LogitsOnly(model).eval(),
            kwargs=inputs,
            dynamic_shapes=dict.fromkeys(inputs, shape),
            input_names=list(inputs),
            output_names=["logits"],
            verbose=False,
            optimize=False,
        )
        # With `optimize=True`, PyTorch does more, such as replacing patterns, which takes seconds; for the included
        # adapter, ONNX Runtime was no faster then.
        onnxscript.optimizer.fold_constants(program.model)
        onnxscript.optimizer.remove_unused_nodes(program.model)
        program.save(path)
    difference = compare(model, tokenizer, path)
    if not difference <= TOLERANCE:
        raise ValueError(f"ONNX Runtime gives other answers than the model: logits differ by up to {difference:.3g}.")


def compare(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: Path, batch_size: int = 8) -> float:
    """Return the largest difference between the model's and ONNX Runtime's logits on 64 messages, in batches."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    texts = pd.read_csv(MESSAGES, sep="\t", quoting=csv.QUOTE_NONE)["Text"].sample(64, random_state=0).tolist()
    difference = 0.0
    for start in range(0, len(texts), batch_size):
        batch = tokenizer(texts[start : start + batch_size], padding=True, truncation=True, return_tensors="pt")
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            expected = model(**inputs).logits.numpy()
        (logits,) = session.run(["logits"], {name: values.numpy() for name, values in inputs.items()})
        difference = max(difference, float(np.abs(logits - expected).max()))
    return difference
