"""Load a fine-tuned text classifier and classify messages with it; `training/` holds what training needs.

from text_classifier import classify, load_tokenizer_and_model

tokenizer, model = load_tokenizer_and_model("lora_model")
classify(["You won a prize!", "See you at seven?"], tokenizer, model)
"""

from text_classifier.inference import Classification, classify, load_tokenizer_and_model

__all__ = ["Classification", "classify", "load_tokenizer_and_model"]
