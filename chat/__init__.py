"""What the chat app is made of; `chainlit_gpt_classification.py` puts it together."""
