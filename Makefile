PYTHON ?= python3
VENV := .venv

.PHONY: chat train test benchmark clean

# Open http://localhost:8000 and type a message.
chat: $(VENV)/runtime
	$(VENV)/bin/chainlit run chainlit_gpt_classification.py

# Train with the default recipe; replaces lora_model/ and training_metrics.pdf when it is done.
train: $(VENV)/runtime
	$(VENV)/bin/python gpt_classification_model.py

test: $(VENV)/development
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pytest

benchmark: $(VENV)/runtime
	$(VENV)/bin/python benchmarks/training_speed.py

$(VENV)/runtime: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet -r requirements.txt
	touch $@

$(VENV)/development: requirements-dev.txt $(VENV)/runtime
	$(VENV)/bin/pip install --quiet -r requirements-dev.txt
	touch $@

clean:
	rm -rf $(VENV) results
