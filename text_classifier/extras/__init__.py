"""Parts that only some readers need: Ray, ONNX, pretraining, film reviews."""
