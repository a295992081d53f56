"""The parts of the chat app; `chainlit_gpt_classification.py` puts them together."""
