"""Chat with the trained classifier: `chainlit run chainlit_gpt_classification.py`.

Environment variables:
    ADAPTER_DIR: folder of the adapter to serve; ./lora_model if not set.
    FEEDBACK_FILE: SQLite file that stores the answers people mark as wrong; nothing is stored if not set.
    CHAT_USERNAME, CHAT_PASSWORD: name and password that visitors must give; everyone may come in if not set.
    CHAT_HOSTS: host names that the server answers to, separated by commas. If not set, the server answers to
        this machine's own names, or to every name when it is started with `--host`.
    DEVICE: `cpu` forbids the GPU, `cuda:1` names one of several; if not set, a GPU is used where there is one.
"""

import asyncio
import contextlib
import functools
import logging
import os
import secrets
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path

# Turn telemetry off. transformers reads this when it is imported, so it stands before the imports.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import chainlit as cl
from chainlit.config import config as chainlit_config
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from chat import settings
from chat.api import create_api, log_failure, same_credentials
from chat.batching import BatchingClassifier, BusyError, usual_batch_size
from chat.dropped_files import answer_file, answer_file_again
from chat.server import harden, keep_own_uploads, refuse_floods, use_own_words
from chat.texts import LANGUAGES, TEXTS, closest_language, label_name, say, show_probability, starters, visible
from text_classifier.classifier import Answer, Classifier
from text_classifier.feedback import delete_feedback, open_feedback, save_feedback
from text_classifier.reading.notes import TableError
from text_classifier.runtime import encode, fast_dtype, limit_kernel_cache

# ---------------------------------------------------------------------------- start

# The model's thread and the server's thread take turns in one interpreter. They change every 0.5 ms instead of every
# 5 ms, so that neither waits long for the other.
sys.setswitchinterval(0.0005)

settings.check_address()
keep_own_uploads()
use_own_words()
limit_kernel_cache(256)  # More are no faster here, and each takes memory.
if not Path(settings.ADAPTER_DIR).is_dir():
    settings.give_up(f"找不到 {settings.ADAPTER_DIR} 目录, 请确认模型已正确保存 · adapter folder not found")
try:
    classifier = Classifier.load(settings.ADAPTER_DIR, fast_dtype())
# Every parser raises errors of its own on a damaged file. With any of them there is nothing to serve.
except Exception as error:
    reason = " ".join(str(error).split())
    settings.give_up(f"错误信息: 无法加载模型 · cannot load {settings.ADAPTER_DIR}: {reason}")
classifier.answer(["ok"])  # The first answer loads for half a second, which no visitor should wait.
batching = BatchingClassifier(classifier, usual_batch_size(classifier.model.device))
credentials = settings.get_credentials()

if settings.FEEDBACK_FILE:
    try:
        open_feedback(settings.FEEDBACK_FILE)
    except (OSError, sqlite3.Error) as error:
        settings.give_up(f"错误信息: 无法写入反馈文件 · cannot write FEEDBACK_FILE {settings.FEEDBACK_FILE}: {error}")

if credentials:
    # Chainlit signs its cookies with this. A random secret is new at every start, so a restart signs everybody out.
    os.environ.setdefault("CHAINLIT_AUTH_SECRET", secrets.token_urlsafe(32))

    @cl.password_auth_callback
    async def sign_in(name: str, password: str) -> cl.User | None:
        """Let a visitor in who gives the right name and password."""
        return cl.User(identifier=name) if same_credentials((name, password), credentials) else None


# The page can follow the reader's system, but Chainlit's settings file only takes `light` and `dark`.
chainlit_config.ui.default_theme = "system"
harden(create_api(batching, credentials), chainlit_config.run.root_path, settings.get_hosts())


def get_model_and_tokenizer() -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Return tokenizer and merged language model, which are loaded once per process."""
    return classifier.tokenizer, classifier.model


def classify_review(user_input: str) -> str:
    """Return 垃圾信息 (spam) or 正常信息 (ham) for one message, for code that imports this app.

    For a message with nothing to read, it returns the sentence that asks for a text.
    """
    (answer,) = classifier.answer([user_input])
    return label_name(answer.label, "zh") if answer else say("empty", "zh")


# ---------------------------------------------------------------------------- the visit


@cl.set_chat_profiles
async def welcome(user: cl.User | None, language: str | None) -> list[cl.ChatProfile]:
    """Return the opening page: what the chat does, which model answers, four messages to try."""
    language = closest_language(language)
    negative, positive = (label_name(label, language) for label in classifier.labels)
    text = say(
        "welcome",
        language,
        negative=negative,
        positive=positive,
        max_rows=f"{settings.FILE_LIMITS.rows:,}",
        max_megabytes=chainlit_config.features.spontaneous_file_upload.max_size_mb,
        model=describe_model(language),
        privacy=say("privacy_feedback" if settings.FEEDBACK_FILE else "privacy", language),
    )
    to_try = [
        cl.Starter(label=title, message=message)
        for title, message in starters(classifier.labels[1], language, classifier.settings.languages)
    ]
    icon = f"{chainlit_config.run.root_path}/public/favicon.svg"
    return [cl.ChatProfile("classifier", text, icon=icon, default=True, starters=to_try)]


@functools.cache
def describe_model(language: str) -> str:
    """Return one line about the model that answers, with its accuracy on held-out messages if the folder has it."""
    tuning = " + LoRA" if Path(settings.ADAPTER_DIR, "adapter_config.json").is_file() else ""
    tuning += " + TF-IDF" if classifier.tfidf else ""
    line = say("model", language, base=classifier.base_name.split("/")[-1], tuning=tuning)
    accuracy = classifier.settings.accuracy.items()
    if shares := [say(name, language, share=f"{100 * share:.1f} %") for name, share in accuracy]:
        line += say("model_accuracy", language, shares=say("comma", language).join(shares))
    return line + (" " + say("model_is_useless", language) if classifier.settings.warnings else "")


def visitor_settings() -> dict:
    """Return the visitor's settings; a visit begins with the adapter's threshold and the browser's language."""
    threshold, language = classifier.settings.decision_threshold, cl.context.session.language
    return {"threshold": 100 * threshold, "language": language, "explanations": True} | cl.context.session.chat_settings


def reader_language() -> str:
    """Return the language to answer in."""
    return closest_language(visitor_settings()["language"])


def threshold() -> float:
    """Return the visitor's decision threshold, between 0 and 1."""
    return min(max(float(visitor_settings()["threshold"]) / 100, 0.0), 1.0)


@cl.on_chat_start
@cl.on_settings_update
async def offer_settings() -> None:
    """Send the settings panel in the visitor's language, which may have changed; Chainlit stores the settings."""
    language = reader_language()
    slider = cl.input_widget.Slider(
        id="threshold",
        label=say("threshold_setting", language, label=label_name(classifier.labels[1], language)),
        initial=visitor_settings()["threshold"],
        min=1,
        max=99,
        step=1,
    )
    select = cl.input_widget.Select(
        id="language",
        label=say("language_setting", language),
        items={name: code for code, name in LANGUAGES.items()},
        initial_value=language,
    )
    switch = cl.input_widget.Switch(
        id="explanations", label=say("explanations_setting", language), initial=visitor_settings()["explanations"]
    )
    await cl.ChatSettings([slider, select, switch]).send()


@cl.on_stop
async def stop() -> None:
    """Translate Chainlit's message that a task was stopped, which is always in English."""
    for message in cl.chat_context.get():
        if message.content == "Task manually stopped.":
            message.content = say("task_stopped", reader_language())
            await message.update()


async def reply(key: str, /, **values) -> None:
    """Send one of the sentences of `chat/texts.yaml` in the visitor's language."""
    await cl.Message(say(key, reader_language(), **values)).send()


@contextlib.asynccontextmanager
async def apologies() -> AsyncIterator[None]:
    """Answer every error politely. For an unexpected one, the visitor gets a number, and the log has the details."""
    try:
        yield
    except TableError as error:
        await reply(error.key, **error.values)
    except BusyError:
        await reply("busy")
    except Exception:
        await reply("error", error_id=log_failure("A request"))


refuse_floods(lambda: reply("too_fast"))


@cl.on_message
async def main(message: cl.Message) -> None:
    """Answer a message, or a file of messages."""
    try:
        async with apologies():
            if message.content or not message.elements:
                await answer_text(message.content.strip())
            if len(message.elements) > 1:
                await reply("one_file")
            elif message.elements:
                if not message.content:
                    # Without a text, Chainlit shows an empty bubble.
                    message.content = say("file_sent", reader_language())
                    await message.update()
                (file,) = message.elements
                await answer_file(Path(file.path), file.name, batching, reader_language(), threshold)
    finally:
        cl.chat_context.clear()  # Chainlit keeps every message in memory otherwise, even after the visit.


@cl.action_callback("other_encoding")
async def use_other_encoding(action: cl.Action) -> None:
    """Read the last file again in an encoding that the visitor chooses."""
    async with apologies():
        await answer_file_again(batching, reader_language(), threshold)
    # Chainlit takes an answered question for the beginning of a task, and only ends the tasks of messages itself.
    await cl.context.emitter.task_end()


# ---------------------------------------------------------------------------- one message

# asyncio itself holds only weak references to tasks.
background_tasks: set[asyncio.Task] = set()


async def answer_text(text: str) -> None:
    """Send label and probability at once; the words that mattered follow when they are known."""
    if len(text) > settings.MAX_MESSAGE_CHARACTERS:
        await reply("too_long", limit=f"{settings.MAX_MESSAGE_CHARACTERS:,}")
        return
    language, limit = reader_language(), threshold()
    (answer,) = await batching.classify([text], limit)
    if answer is None:
        await reply("empty")
        return
    label = answer.label_at(limit)
    wanted = bool(visitor_settings()["explanations"])
    explain = wanted and batching.can_explain
    status = say("explaining" if explain else "explanation_busy", language)
    element = cl.CustomElement(
        name="Answer",
        # Without a url, Chainlit would write the element to a file, and the words of the message with it.
        url="/public/elements/Answer.jsx",
        props={
            "probability": answer.probability,
            "threshold": limit,
            "names": [label_name(name, language) for name in classifier.labels],
            "note": reading_note(answer, limit, language),
            "explanation": {"status": status} if wanted else None,
            "texts": {
                "probability": say("probability_of", language, label=label_name(classifier.labels[1], language)),
                "threshold": say("threshold", language, percent=f"{100 * limit:g} %"),
                "explanation": say("explanation", language),
            },
        },
    )
    percent = show_probability(answer.probability_at(limit))
    said = say("answer", language, chinese=label_name(label, "zh"), english=label, percent=percent)
    sent = await cl.Message(said, elements=[element]).send()
    if settings.FEEDBACK_FILE:
        await remember(sent.id, text, label)
    if explain:
        # This is not awaited, so that the next message can be answered meanwhile.
        task = asyncio.create_task(show_explanation(element, text, language))
        background_tasks.add(task)
        task.add_done_callback(background_tasks.discard)


def reading_note(answer: Answer, threshold: float, language: str) -> str | None:
    """Return what a visitor should know about how a message was read, or None if it was read as usual."""
    notes = []
    if answer.other_language:
        # A language that somebody added to the settings may have no name here.
        learned = [TEXTS[language].get(f"language_{code}", code) for code in classifier.settings.languages]
        notes.append(say("other_language", language, languages=say("and", language).join(learned)))
    elif answer.less_sure_at(threshold):
        notes.append(say("less_sure", language))
    if answer.answered_by == "TF-IDF":
        notes.append(say("tfidf_alone", language))
    elif answer.truncated:
        notes.append(say("truncated", language, limit=classifier.tokenizer.model_max_length))
    return " ".join(notes) or None


async def show_explanation(element: cl.CustomElement, text: str, language: str) -> None:
    """Add to an answer how much each word of the message mattered."""
    try:
        words = await batching.explain(await asyncio.to_thread(part_read, text))
        strongest = max(abs(contribution) for _, contribution in words) or 1.0
        explanation = {
            "words": [
                {"text": visible(word), "strength": contribution / strongest, "logOdds": round(contribution, 2)}
                for word, contribution in words
            ]
        }
    except BusyError:
        explanation = {"status": say("explanation_busy", language)}
    except Exception:
        explanation = {"status": say("error", language, error_id=log_failure("An explanation"))}
    element.props = element.props | {"explanation": explanation}
    await element.update()


def part_read(text: str) -> str:
    """Return the beginning of a message, as far as the language model reads it; only this part is explained."""
    (encoding,) = encode([text], classifier.tokenizer, classifier.tokenizer.model_max_length).encodings
    return text[: max((end for _, end in encoding.offsets), default=len(text))]


# ---------------------------------------------------------------------------- feedback


async def remember(message_id: str, text: str, label: str) -> None:
    """Keep an answer on the server, so that feedback stores this and not what a browser sends; offer to correct it."""
    right = next(name for name in classifier.labels if name != label)
    answers = cl.user_session.get("answers") or {}
    answers[message_id] = {"correction": (text, label, right)}
    if len(answers) > settings.MAX_REMEMBERED_ANSWERS:
        del answers[next(iter(answers))]
    cl.user_session.set("answers", answers)
    await offer("wrong", message_id)


async def offer(button: str, message_id: str) -> None:
    """Show below an answer the button `wrong`, or `undo`, which takes the correction back."""
    answer, language = cl.user_session.get("answers")[message_id], reader_language()
    answer["button"] = button
    label = say(button, language, label=label_name(answer["correction"][2], language))
    icon = {"wrong": "thumbs-down", "undo": "undo-2"}[button]
    await cl.Action(name=button, payload={}, label=label, icon=icon).send(message_id)


@cl.action_callback("wrong")
@cl.action_callback("undo")
async def correct(action: cl.Action) -> None:
    """Store an answer with its right label, or delete this correction again, and offer the other button."""
    answer = (cl.user_session.get("answers") or {}).get(action.forId)
    if answer is None or answer["button"] != action.name:
        return
    answer["button"] = None  # This stands before the first await, so that a second click does nothing.
    async with apologies():
        try:
            if action.name == "wrong":
                answer["id"] = await asyncio.to_thread(save_feedback, settings.FEEDBACK_FILE, *answer["correction"])
            else:
                await asyncio.to_thread(delete_feedback, settings.FEEDBACK_FILE, answer["id"])
        except Exception as error:
            answer["button"] = action.name
            if not isinstance(error, OSError):
                raise
            logging.getLogger(__name__).error("%s", error)
            await reply("not_stored")
            return
        await action.remove()
        await offer("undo" if action.name == "wrong" else "wrong", action.forId)
