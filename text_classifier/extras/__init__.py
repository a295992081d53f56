"""Parts that only some readers need: Ray, ONNX, the Hugging Face Hub, pretraining, film reviews."""
