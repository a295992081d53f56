"""Fine-tuned text classifiers: load one, classify messages and files with it; below `training/`, make one.

from text_classifier import classify, load_tokenizer_and_model

tokenizer, model = load_tokenizer_and_model("lora_model")
classify(["You won a prize!", "See you at seven?"], tokenizer, model)
"""

__all__ = ["Classification", "classify", "load_tokenizer_and_model"]


def __getattr__(name: str):
    # PyTorch takes seconds to import, and what only reads tables or fetches files does without it.
    if name in __all__:
        from text_classifier import inference

        return getattr(inference, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
