"""Chat with the trained classifier: `chainlit run chainlit_gpt_classification.py`.

Environment variables:
    ADAPTER_DIR: folder of the adapter to serve; ./lora_model if not set.
    FEEDBACK_FILE: SQLite file that stores the answers people mark as wrong; nothing is stored if not set.
    CHAT_USERNAME, CHAT_PASSWORD: name and password that visitors must give; everyone may come in if not set.
    CHAT_HOSTS: host names that the server answers to, separated by commas. If not set, the server answers to
        this machine's own names, or to every name when it is started with `--host`.
    DEVICE: `cpu` forbids the GPU, `cuda:1` names one of several; the accelerator is used where there is one if not set.
"""

import asyncio
import collections
import contextlib
import functools
import logging
import os
import secrets
import sqlite3
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

# Turn telemetry off. transformers reads this when it is imported, so it stands before the imports.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import chainlit as cl
import yaml
from chainlit.config import config as chainlit_config
from huggingface_hub import ModelCard
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from chat.api import create_api, log_failure, same_credentials
from chat.batching import BatchingClassifier, BusyError, usual_batch_size
from chat.display import reading_note, show_probability, visible
from chat.dropped_files import answer_file, answer_file_again
from chat.environment import ADAPTER_DIR, FEEDBACK_FILE, check_address, get_credentials, get_hosts, give_up
from chat.limits import MAX_FILE_ROWS, MAX_MESSAGE_CHARACTERS, MAX_PENDING_MESSAGES, MAX_REMEMBERED_ANSWERS
from chat.server import harden
from chat.texts import LANGUAGES, chinese_label, closest_language, label_name, say, starters
from chat.uploads import use_own_folder
from text_classifier.characters import is_empty
from text_classifier.classifier import Classifier
from text_classifier.feedback import delete_feedback, open_feedback, save_feedback
from text_classifier.reading.notes import TableError
from text_classifier.runtime import encode, fast_dtype, limit_kernel_cache

# ---------------------------------------------------------------------------- start


@functools.cache
def load_classifier() -> Classifier:
    """Return the classifier, loaded once per process.

    If the adapter cannot be loaded, print the reason in one line and end the process with exit code 1.
    """
    if not Path(ADAPTER_DIR).is_dir():
        give_up(f"找不到 {ADAPTER_DIR} 目录, 请确认模型已正确保存 · adapter folder not found")
    try:
        return Classifier.load(ADAPTER_DIR, fast_dtype())
    # Every parser raises errors of its own on a damaged file. With any of them there is nothing to serve.
    except Exception as error:
        reason = " ".join(str(error).split())
        give_up(f"错误信息: 无法加载模型 · cannot load {ADAPTER_DIR}: {reason}")


def get_model_and_tokenizer() -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Return tokenizer and merged language model, loaded once per process."""
    return load_classifier().tokenizer, load_classifier().model


@functools.cache
def describe_model(language: str) -> str:
    """Return one line about the model that answers, with the test figures of its model card."""
    tuning = " + LoRA" if Path(ADAPTER_DIR, "adapter_config.json").is_file() else ""
    tuning += " + TF-IDF" if classifier.tfidf else ""
    try:
        card = ModelCard.load(Path(ADAPTER_DIR, "README.md")).data
        line = say("model", language, base=card.base_model.split("/")[-1], tuning=tuning)
        figures = {result.metric_type: show_probability(result.metric_value) for result in card.eval_results}
        dataset = card.eval_results[0].dataset_name
        line += say("model_figures", language, accuracy=figures["accuracy"], f1=figures["f1"], dataset=dataset)
        return line + describe_halves(language)
    # A folder without a model card, or with a card of another form, can be served all the same.
    except (OSError, ValueError, AttributeError, KeyError, TypeError, IndexError, yaml.YAMLError):
        return say("model", language, base=classifier.base_name, tuning=tuning)


def describe_halves(language: str) -> str:
    """Return what the language model, TF-IDF and both have on held-out messages, if the folder says so."""
    shares = classifier.settings.accuracy
    if not shares:
        return ""
    told = [say(name, language, share=f"{100 * share:.1f} %") for name, share in shares.items()]
    useless = " " + say("model_is_useless", language) if classifier.settings.warnings else ""
    return say("model_halves", language, shares=say("comma", language).join(told)) + useless


# The model's thread and the server's thread take turns in one interpreter. They change every 0.5 ms instead of every
# 5 ms, so that neither waits long for the other.
sys.setswitchinterval(0.0005)

check_address()
use_own_folder()
limit_kernel_cache(256)  # More are no faster here, and each takes memory.
classifier = load_classifier()
classifier.answer(["ok"])  # The first answer loads for half a second, which no visitor should wait.
batching = BatchingClassifier(classifier, usual_batch_size(classifier.model.device))
label_names = classifier.labels
credentials = get_credentials()

if FEEDBACK_FILE:
    try:
        open_feedback(FEEDBACK_FILE)
    except (OSError, sqlite3.Error) as error:
        give_up(f"错误信息: 无法写入反馈文件 · cannot write FEEDBACK_FILE {FEEDBACK_FILE}: {error}")

if credentials:
    # Chainlit signs its cookies with this. A random secret is new at every start, so a restart signs everybody out.
    os.environ.setdefault("CHAINLIT_AUTH_SECRET", secrets.token_urlsafe(32))

    @cl.password_auth_callback
    async def sign_in(name: str, password: str) -> cl.User | None:
        """Let a visitor in who gives the right name and password."""
        return cl.User(identifier=name) if same_credentials((name, password), credentials) else None


# The page can follow the reader's system, but Chainlit's settings file only takes `light` and `dark`.
chainlit_config.ui.default_theme = "system"
harden(create_api(batching, credentials), chainlit_config.run.root_path, get_hosts())

# ---------------------------------------------------------------------------- the visit


@cl.set_chat_profiles
async def welcome(user: cl.User | None, language: str | None) -> list[cl.ChatProfile]:
    """Return the opening page: what the chat does, which model answers, four messages to try."""
    language = closest_language(language)
    text = say(
        "welcome",
        language,
        negative=label_name(label_names[0], language),
        positive=label_name(label_names[1], language),
        max_rows=f"{MAX_FILE_ROWS:,}",
        max_megabytes=chainlit_config.features.spontaneous_file_upload.max_size_mb,
        model=describe_model(language),
        privacy=say("privacy_feedback" if FEEDBACK_FILE else "privacy", language),
    )
    learned = classifier.settings.languages
    to_try = [
        cl.Starter(label=title, message=message) for title, message in starters(label_names[1], language, learned)
    ]
    icon = f"{chainlit_config.run.root_path}/public/favicon.svg"
    return [cl.ChatProfile("classifier", text, icon=icon, default=True, starters=to_try)]


@cl.on_chat_start
async def start() -> None:
    """Send the settings panel in the browser's language."""
    await offer_settings(default_settings())


def default_settings() -> dict:
    """Return the settings that a visit begins with."""
    language = closest_language(cl.context.session.language)
    return {"threshold": 100 * classifier.settings.decision_threshold, "language": language, "explanations": True}


def settings() -> dict:
    """Return the visitor's settings."""
    return default_settings() | (cl.user_session.get("chat_settings") or {})


def reader_language() -> str:
    """Return the language to answer in."""
    return closest_language(settings()["language"])


def threshold() -> float:
    """Return the visitor's decision threshold, between 0 and 1."""
    return min(max(float(settings()["threshold"]) / 100, 0.0), 1.0)


async def offer_settings(values: dict) -> None:
    """Send the settings panel, with its texts in the language of `values`."""
    language = closest_language(values["language"])
    slider = cl.input_widget.Slider(
        id="threshold",
        label=say("threshold_setting", language, label=label_name(label_names[1], language)),
        initial=values["threshold"],
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
        id="explanations", label=say("explanations_setting", language), initial=values["explanations"]
    )
    await cl.ChatSettings([slider, select, switch]).send()


@cl.on_settings_update
async def update_settings(values: dict) -> None:
    """Send the settings panel again, because its language may have changed; Chainlit stores the settings."""
    await offer_settings(default_settings() | values)


@cl.on_stop
async def stop() -> None:
    """Translate Chainlit's message that a task was stopped, which is always in English."""
    for message in cl.chat_context.get():
        if message.content == "Task manually stopped.":
            message.content = say("task_stopped", reader_language())
            await message.update()


@contextlib.asynccontextmanager
async def apologies() -> AsyncIterator[None]:
    """Answer every error politely. For an unexpected one, the visitor gets a number, and the log has the details."""
    try:
        yield
    except TableError as error:
        await cl.Message(say(error.key, reader_language(), **error.values)).send()
    except BusyError:
        await cl.Message(say("busy", reader_language())).send()
    except Exception:
        await cl.Message(say("error", reader_language(), error_id=log_failure("A request"))).send()


# Number of messages of each visit that are not answered yet.
pending: collections.Counter[str] = collections.Counter()


@cl.on_message
async def main(message: cl.Message) -> None:
    """Answer a message, or a file of messages."""
    visit = cl.context.session.id
    if pending[visit] >= MAX_PENDING_MESSAGES:
        # Warn at most every five seconds, so that a burst of messages gets few warnings.
        if time.monotonic() - (cl.user_session.get("warned_at") or -10) > 5:
            cl.user_session.set("warned_at", time.monotonic())
            await cl.Message(say("too_fast", reader_language())).send()
        return
    pending[visit] += 1
    try:
        async with apologies():
            if message.content or not message.elements:
                await answer_text(message.content)
            if len(message.elements) > 1:
                await cl.Message(say("one_file", reader_language())).send()
            elif message.elements:
                if not message.content:
                    # Without a text, Chainlit shows an empty bubble.
                    message.content = say("file_sent", reader_language())
                    await message.update()
                (file,) = message.elements
                await answer_file(Path(file.path), file.name, batching, reader_language(), threshold)
    finally:
        pending[visit] -= 1
        if not pending[visit]:
            del pending[visit]
            cl.chat_context.clear()  # Chainlit keeps every message in memory otherwise, even after the visit.


@cl.action_callback("other_encoding")
async def use_other_encoding(action: cl.Action) -> None:
    """Read the last file again in an encoding that the visitor chooses."""
    async with apologies():
        await answer_file_again(batching, reader_language(), threshold)
    # Chainlit takes an answered question for the beginning of a task, and only ends the tasks of messages itself.
    await cl.context.emitter.task_end()


# ---------------------------------------------------------------------------- one message


def classify_review(user_input: str) -> str:
    """Return 垃圾信息 (spam) or 正常信息 (ham) for one message, for code that imports this app.

    For a message with nothing to read, it returns the sentence that asks for a text.
    """
    (answer,) = classifier.answer([user_input])
    return chinese_label(answer.label) if answer else say("empty", "zh")


async def answer_text(text: str) -> None:
    """Send label and probability at once; the words that mattered follow when they are known."""
    text, language = text.strip(), reader_language()
    if is_empty(text):
        await cl.Message(say("empty", language)).send()
        return
    if len(text) > MAX_MESSAGE_CHARACTERS:
        await cl.Message(say("too_long", language, limit=f"{MAX_MESSAGE_CHARACTERS:,}")).send()
        return
    limit = threshold()
    (answer,) = await batching.classify([text], limit)
    label, probability = answer.label_at(limit), answer.probability_at(limit)
    wanted = bool(settings()["explanations"])
    explain = wanted and batching.can_explain
    status = say("explaining" if explain else "explanation_busy", language)
    element = cl.CustomElement(
        name="Answer",
        # Without a url, Chainlit would write the element to a file, and the words of the message with it.
        url="/public/elements/Answer.jsx",
        props={
            "probability": answer.probability,
            "threshold": limit,
            "names": [label_name(name, language) for name in label_names],
            "note": reading_note(
                answer, limit, classifier.settings.languages, classifier.tokenizer.model_max_length, language
            ),
            "explanation": {"status": status} if wanted else None,
            "texts": {
                "probability": say("probability_of", language, label=label_name(label_names[1], language)),
                "threshold": say("threshold", language, percent=f"{100 * limit:g} %"),
                "explanation": say("explanation", language),
            },
        },
    )
    reply = say("answer", language, chinese=chinese_label(label), english=label, percent=show_probability(probability))
    actions = [wrong_action(label, language)] if FEEDBACK_FILE else []
    sent = await cl.Message(reply, elements=[element], actions=actions).send()
    if FEEDBACK_FILE:
        remember(sent.id, text, label)
    if explain:
        # This is not awaited, so that the next message can be answered meanwhile.
        in_background(show_explanation(element, text, language))


def part_read(text: str) -> str:
    """Return the beginning of a message, as far as the language model reads it; only this part is explained."""
    (encoding,) = encode([text], classifier.tokenizer, classifier.tokenizer.model_max_length).encodings
    return text[: max((end for _, end in encoding.offsets), default=len(text))]


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


background_tasks: set[asyncio.Task] = set()


def in_background(work) -> None:
    """Run a coroutine in the background. A set keeps its task alive, because asyncio holds only a weak reference."""
    task = asyncio.create_task(work)
    background_tasks.add(task)
    task.add_done_callback(background_tasks.discard)


# ---------------------------------------------------------------------------- feedback


def wrong_action(label: str, language: str) -> cl.Action:
    """Return the button that marks an answer as wrong."""
    right = label_name(next(name for name in label_names if name != label), language)
    return cl.Action(name="wrong", payload={}, label=say("wrong", language, label=right), icon="thumbs-down")


def remember(message_id: str, text: str, label: str) -> None:
    """Keep message and label on the server, so that feedback stores these and not what a browser sends."""
    answers = cl.user_session.get("answers") or {}
    answers[message_id] = {"text": text, "label": label}
    while len(answers) > MAX_REMEMBERED_ANSWERS:
        answers.pop(next(iter(answers)))
    cl.user_session.set("answers", answers)


async def tell_not_stored(error: Exception) -> None:
    """Tell the visitor that a correction cannot be stored, and the log why, in one line; other errors are raised."""
    if not isinstance(error, OSError):
        raise error
    logging.getLogger(__name__).error("%s", error)
    await cl.Message(say("not_stored", reader_language())).send()


@cl.action_callback("wrong")
async def mark_as_wrong(action: cl.Action) -> None:
    """Store an answer with its right label, and offer a button that takes it back."""
    answer = (cl.user_session.get("answers") or {}).get(action.forId)
    if answer is None or FEEDBACK_FILE is None or "feedback_id" in answer:
        return
    # Set this before the first await, so that a second click does nothing.
    answer["feedback_id"] = None
    async with apologies():
        right = next(name for name in label_names if name != answer["label"])
        try:
            answer["feedback_id"] = await asyncio.to_thread(
                save_feedback, FEEDBACK_FILE, answer["text"], answer["label"], right
            )
        except Exception as error:
            del answer["feedback_id"]
            await tell_not_stored(error)
            return
        await action.remove()
        await cl.Action(name="undo_wrong", payload={}, label=say("undo", reader_language()), icon="undo-2").send(
            action.forId
        )


@cl.action_callback("undo_wrong")
async def undo_wrong(action: cl.Action) -> None:
    """Delete the correction that `mark_as_wrong` stored."""
    answer = (cl.user_session.get("answers") or {}).get(action.forId)
    feedback_id = answer and answer.get("feedback_id")
    if feedback_id is None:
        return
    answer["feedback_id"] = None
    async with apologies():
        try:
            await asyncio.to_thread(delete_feedback, FEEDBACK_FILE, feedback_id)
        except Exception as error:
            answer["feedback_id"] = feedback_id
            await tell_not_stored(error)
            return
        del answer["feedback_id"]
        await action.remove()
        await wrong_action(answer["label"], reader_language()).send(action.forId)
