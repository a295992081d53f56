"""Chat with the trained classifier: `chainlit run chainlit_gpt_classification.py`."""

import functools
import logging
import sys
import uuid
from pathlib import Path

import chainlit as cl
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from text_classifier import Classification, classify, load_tokenizer_and_model

logger = logging.getLogger(__name__)

ADAPTER_DIR = "./lora_model"
CHINESE_LABELS = {"spam": "垃圾信息", "ham": "正常信息"}


@functools.cache
def get_model_and_tokenizer() -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Return tokenizer and merged model, loaded once per process.

    Without a usable adapter, say why in one line and end the process with exit code 1.
    """
    if not Path(ADAPTER_DIR).is_dir():
        print(f"找不到 {ADAPTER_DIR} 目录, 请确认模型已正确保存 · adapter folder not found", file=sys.stderr)
        sys.exit(1)
    try:
        return load_tokenizer_and_model(ADAPTER_DIR)
    # Damaged files raise whatever their parser raises; each of them means that there is nothing to serve.
    except Exception as error:
        print(f"错误信息: 无法加载模型 · cannot load {ADAPTER_DIR}: {error}", file=sys.stderr)
        sys.exit(1)


def classify_text(user_input: str) -> Classification:
    """Classify one message that is not empty."""
    tokenizer, model = get_model_and_tokenizer()
    return classify([user_input], tokenizer, model)[0]


def chinese_label(label: str) -> str:
    """Return a label's Chinese name, or the label where none is known."""
    return CHINESE_LABELS.get(label, label)


def classify_review(user_input: str) -> str:
    """Return 垃圾信息 (spam) or 正常信息 (ham) for one message that is not empty."""
    return chinese_label(classify_text(user_input).label)


@cl.on_message
async def main(message: cl.Message) -> None:
    """Answer a message with its label and probability, in Chinese and English."""
    user_input = message.content.strip()
    if not user_input:
        await cl.Message("请输入一段文本以进行分类 · Please enter a text to classify").send()
        return
    try:
        # In a thread of its own, so that other people's pages stay alive meanwhile.
        answer = await cl.make_async(classify_text)(user_input)
    # A person gets a number to quote, the log gets the details.
    except Exception:
        error_id = uuid.uuid4().hex[:8]
        logger.exception("Classification failed (error %s)", error_id)
        await cl.Message(f"错误信息: 分类失败, 请重试 · Classification failed, please try again ({error_id})").send()
        return
    # Nothing is certain: 100.0 % would be a rounded claim.
    certainty = f"{100 * answer.probability:.1f} %" if answer.probability < 0.9995 else "> 99.9 %"
    reply = f"该文本被分类为: **{chinese_label(answer.label)}** · {answer.label} · {certainty}"
    if answer.truncated:
        limit = get_model_and_tokenizer()[0].model_max_length
        reply += f"\n\n*仅分析了前 {limit} 个词元 · Only the first {limit} tokens were read*"
    await cl.Message(reply).send()


# Chainlit imports this file before it opens its port: nobody's first message waits for the model.
get_model_and_tokenizer()
