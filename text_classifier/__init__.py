"""Fine-tuned text classifiers: load one, classify messages and files with it; below `training/`, make one.

from text_classifier import Classifier

Classifier.load("lora_model").answer(["You won a prize!", "See you at seven?"])
"""

__all__ = ["Answer", "Classifier", "classify", "load_tokenizer_and_model"]


def __getattr__(name: str):
    # PyTorch takes seconds to import, and code that only reads tables or fetches files does not need it.
    if name in __all__:
        from text_classifier import classifier

        return getattr(classifier, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
