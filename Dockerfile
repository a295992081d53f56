# The chat in a container:
#   docker build --tag spam-chat . && docker run --publish 8000:8000 spam-chat
FROM python:3.11-slim

ARG PIP_INDEX_URL=https://pypi.org/simple
# PyPI's torch brings gigabytes of CUDA along.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

RUN useradd --create-home chat && install --directory --owner=chat /app /data
WORKDIR /app
# Docker installs the packages again only when requirements.txt changes.
COPY requirements.txt .
RUN pip install --no-cache-dir --index-url $TORCH_INDEX "$(grep ^torch== requirements.txt)" \
    && pip install --no-cache-dir --index-url $PIP_INDEX_URL --requirement requirements.txt
COPY --chown=chat . .
USER chat
# Merge the model in bfloat16 and float32, for either kind of CPU, so that the container starts without a network. The
# base weights are not needed after that.
RUN python -c "import torch; from text_classifier import Classifier; \
        [Classifier.load('lora_model', dtype) for dtype in (torch.float32, torch.bfloat16)]" \
    && cd ~/.cache/gpt-classification-model && find . -mindepth 1 -maxdepth 1 ! -name merged -exec rm -r {} +

EXPOSE 8000
HEALTHCHECK --start-period=60s \
    CMD python -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/api/health', timeout=5)"
CMD ["chainlit", "run", "chainlit_gpt_classification.py", "--headless", "--host", "0.0.0.0"]
