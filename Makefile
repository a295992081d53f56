PYTHON ?= python3
VENV := .venv

.PHONY: chat train test benchmark screenshots clean

# Serve the chat on http://localhost:8000.
chat: $(VENV)/runtime
	$(VENV)/bin/chainlit run chainlit_gpt_classification.py

# Train with the default recipe; this replaces lora_model/ and training_metrics.pdf when it is done.
train: $(VENV)/runtime
	$(VENV)/bin/python gpt_classification_model.py

test: $(VENV)/development
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports --no-logo
	OMP_NUM_THREADS=1 $(VENV)/bin/pytest --numprocesses 2

# This takes hours. Trainings that are finished are not repeated.
benchmark: $(VENV)/development
	for name in "accuracy --jobs 2" "left_out_kinds --jobs 2" "design_choices --jobs 2" "scoring --ray" chat_load; do \
		$(VENV)/bin/python -m benchmarks.$$name || exit 1; \
	done

# This needs Chromium and a Chinese font: apt-get install chromium fonts-noto-cjk
screenshots: $(VENV)/development
	$(VENV)/bin/python -m docs.make_screenshots

$(VENV)/runtime: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -r requirements.txt
	touch $@

$(VENV)/development: $(wildcard requirements/*.txt) $(VENV)/runtime
	$(VENV)/bin/pip install -r requirements/dev.txt
	touch $@

# Remove installed packages and the trainings of the benchmarks; other results stay.
clean:
	rm -rf $(VENV) results/accuracy
