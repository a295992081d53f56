"""Pretrain a small GPT from scratch on raw text, and watch it learn to write.

    python gpt_pretraining.py                                          # a short story, in a minute or two
    python gpt_pretraining.py recipes/gpt_pretraining_chitchat.yaml    # conversations, 15 minutes on two cores
    python gpt_pretraining.py --text_file my_texts/ --n_layer 8        # your own text, another size

GPT-2's architecture with random weights learns to predict the next token. What comes out is a standard
Hugging Face folder, a base for the classifier: gpt_classification_model.py --model_name_or_path ./gpt_pretrained
"""

import json
import logging
import math
import sys
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoTokenizer,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
    set_seed,
)

from gpt_classification_model import (
    check_outputs,
    check_same_everywhere,
    checkpoint_to_resume,
    kept_step,
    parse_recipe,
    peak_memory_gib,
    plot_metrics,
    remove_old_checkpoints,
    run_facts,
    run_script,
    save_folder,
    split_recipe,
    unless_none,
)
from text_classifier.errors import ConfigurationError, UnreachableError
from text_classifier.files import file_sha256, write_json
from text_classifier.sources.datasets import DataFile, resolve_chitchat, resolve_the_verdict
from text_classifier.sources.weights import resolve_tokenizer

logger = logging.getLogger(__name__)

DEFAULT_RECIPE = Path(__file__).parent / "recipes" / "gpt_pretraining.yaml"

END_OF_TEXT = "<|endoftext|>"

# ---------------------------------------------------------------------------- configuration


@dataclass
class GPTArguments:
    """Size and tokenizer of the model."""

    n_layer: int = field(default=6, metadata={"help": "Number of transformer blocks."})
    n_head: int = field(default=8, metadata={"help": "Attention heads of a block; divides n_embd."})
    n_embd: int = field(default=256, metadata={"help": "Width of the embeddings."})
    context_length: int = field(default=256, metadata={"help": "Tokens the model reads at once."})
    dropout: float = field(default=0.1, metadata={"help": "Dropout everywhere."})
    tokenizer_name: str = field(
        default="gpt2",
        metadata={
            "help": "Hub id or folder of the tokenizer; `none` trains a byte-level BPE on the text, as does a Hub "
            "that cannot be reached."
        },
    )
    vocab_size: int = field(
        default=8192, metadata={"help": "Tokens of a tokenizer trained here, at most (257 or more)."}
    )


@dataclass
class CorpusArguments:
    """What is read, and what the model is asked to go on with."""

    corpus: Literal["the_verdict", "chitchat"] = field(
        default="the_verdict", metadata={"help": "A short story of 1908, or 258,000 utterances of conversations."}
    )
    fallback_recipe: str | None = field(
        default=None, metadata={"help": "Recipe to follow where the corpus cannot be reached; `none` forbids one."}
    )
    text_file: str | None = field(
        default=None, metadata={"help": "Your own text instead: a UTF-8 file, or a folder of .txt files."}
    )
    validation_frac: float = field(default=0.1, metadata={"help": "Share of the text, its end, that is held out."})
    prompt: str = field(default="Every effort moves you", metadata={"help": "Beginning of the sample texts."})
    sample_tokens: int = field(default=50, metadata={"help": "Tokens of a sample text; 0: none."})


@dataclass
class PretrainingArguments(TrainingArguments):
    """transformers' TrainingArguments, and what this script adds to them."""

    model_dir: str = field(default="gpt_pretrained", metadata={"help": "Folder the trained model is saved to."})
    loss_pdf: str = field(default="pretraining_loss.pdf", metadata={"help": "File the charts are saved to."})


def parse_arguments(argv: Sequence[str]) -> tuple[GPTArguments, CorpusArguments, PretrainingArguments]:
    """Read the recipe and the flags of a pretraining run."""
    kinds = (GPTArguments, CorpusArguments, PretrainingArguments)
    parsed = parse_recipe(argv, kinds, DEFAULT_RECIPE)
    parsed[1].fallback_recipe = unless_none(parsed[1].fallback_recipe)
    return parsed


def check_sizes(gpt_args: GPTArguments, corpus_args: CorpusArguments) -> None:
    """See to it that the numbers make a model.

    Raises:
        ConfigurationError: one is impossible; the message names it.
    """
    smallest = {"n_layer": 1, "n_head": 1, "n_embd": 1, "context_length": 2, "vocab_size": 257}
    for name, least in smallest.items():
        if (value := getattr(gpt_args, name)) < least:
            raise ConfigurationError(f"--{name} {value}: at least {least} is needed.")
    if gpt_args.n_embd % gpt_args.n_head:
        raise ConfigurationError(f"--n_head {gpt_args.n_head} does not divide --n_embd {gpt_args.n_embd}.")
    if not 0 <= gpt_args.dropout < 1:
        raise ConfigurationError(f"--dropout {gpt_args.dropout}: from 0 to below 1 is possible.")
    if not 0 < corpus_args.validation_frac < 1:
        raise ConfigurationError(f"--validation_frac {corpus_args.validation_frac}: a share between 0 and 1 is needed.")
    if not 0 <= corpus_args.sample_tokens < gpt_args.context_length:
        raise ConfigurationError(
            f"--sample_tokens {corpus_args.sample_tokens}: fewer than --context_length are possible."
        )


# ---------------------------------------------------------------------------- text


def text_files(path: Path) -> list[Path]:
    """Return the file itself, or every .txt file of a folder and those below it, in the order of their names.

    Raises:
        ConfigurationError: the folder has none.
    """
    files = sorted(path.rglob("*.txt")) if path.is_dir() else [path]
    if not files:
        raise ConfigurationError(f"There is no .txt file in {path}.")
    return files


def read_documents(path: Path) -> list[str]:
    """Read a UTF-8 text file, or those of a folder, one document each.

    Raises:
        ConfigurationError: there is no such file, no text in them, or one is not UTF-8.
    """
    documents = []
    for file in text_files(path):
        try:
            documents.append(file.read_text(encoding="utf-8-sig").strip())
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"{file} is not UTF-8 text (byte {error.start}); convert it first.") from error
        except OSError as error:
            raise ConfigurationError(f"Cannot read {file}: {error.strerror}") from error
    documents = [document for document in documents if document]
    if not documents:
        raise ConfigurationError(f"There is no text in {path}.")
    return documents


def read_conversations(path: Path) -> list[str]:
    """Read the chitchat data set: one document a conversation, one line an utterance."""
    conversations = json.loads(path.read_text(encoding="utf-8")).values()
    documents = (
        "\n".join(" ".join(utterance["text"].split()) for turn in conversation["messages"] for utterance in turn)
        for conversation in conversations
    )
    return [document for document in documents if document.strip()]


def load_documents(corpus_args: CorpusArguments) -> tuple[list[str], DataFile, str]:
    """Find the corpus and return its documents, the file, and the corpus' name.

    Raises:
        ArtifactError, ConfigurationError: the text cannot be had, or cannot be used.
    """
    if corpus_args.text_file:
        path = Path(corpus_args.text_file)
        documents = read_documents(path)
        return documents, DataFile(path, "local text", file_sha256(*text_files(path))), path.resolve().name
    if corpus_args.corpus == "chitchat":
        file = resolve_chitchat()
        return read_conversations(file.path), file, "chitchat"
    file = resolve_the_verdict()
    return read_documents(file.path), file, "The Verdict"


def split_documents(documents: Sequence[str], validation_frac: float) -> tuple[list[str], list[str]]:
    """Cut a text in two, the end for validation; the document in which the cut falls stands on both sides."""
    left = round((1 - validation_frac) * sum(map(len, documents)))
    train, validation = [], []
    for document in documents:
        train.append(document[:left])
        validation.append(document[left:])
        left = max(0, left - len(document))
    return [text for text in train if text], [text for text in validation if text]


def train_tokenizer(documents: Sequence[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer of GPT-2's kind: every text can be written, none is unknown."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    ends = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END_OF_TEXT)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **ends)


def load_tokenizer(
    gpt_args: GPTArguments, documents: Sequence[str], checkpoint: str | None
) -> tuple[PreTrainedTokenizerBase, str]:
    """Load the tokenizer asked for, or train one on the text; a resumed run goes on with its own.

    Returns:
        The tokenizer and where it is from.

    Raises:
        ArtifactError: there is no tokenizer of that name.
        ConfigurationError: it has no token for the end of a text.
    """
    name, tokenizer = gpt_args.tokenizer_name, None
    if checkpoint:
        tokenizer, source = AutoTokenizer.from_pretrained(checkpoint), "the resumed run"
    elif name.lower() != "none":
        try:
            tokenizer, source = AutoTokenizer.from_pretrained(resolve_tokenizer(name)), name
        except UnreachableError as error:
            logger.warning("%s\nTRAINING A TOKENIZER ON THE TEXT INSTEAD.", error)
    if tokenizer is None:
        tokenizer, source = train_tokenizer(documents, gpt_args.vocab_size), "trained on the text"
    if tokenizer.eos_token_id is None:
        raise ConfigurationError(f"The tokenizer {name} has no end-of-text token: it is not one of a decoder.")
    tokenizer.model_max_length = gpt_args.context_length
    return tokenizer, source


def to_windows(documents: Sequence[str], tokenizer: PreTrainedTokenizerBase, length: int) -> list[dict]:
    """Tokenise documents, an end-of-text token after each, and cut the stream into training examples.

    Returns:
        `input_ids` and `labels`, the same `length` token ids: the model shifts the labels itself. What
        is left at the end is not used.

    Raises:
        ConfigurationError: the text is shorter than one window.
    """
    stream = array("i")
    # A few documents at a time: what the tokenizer returns takes a hundred times the room of the text.
    for start in range(0, len(documents), 256):
        encoded = tokenizer(
            list(documents[start : start + 256]),
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            # It would warn of texts longer than the model reads; they are cut right after.
            verbose=False,
        )
        for ids in encoded["input_ids"]:
            stream.extend((*ids, tokenizer.eos_token_id))
    windows = torch.tensor(stream[: len(stream) // length * length]).view(-1, length)
    if not len(windows):
        raise ConfigurationError(
            f"{len(stream)} tokens of text are fewer than one window of {length}: give more text, lower "
            "--context_length, or change --validation_frac."
        )
    return [{"input_ids": window, "labels": window} for window in windows]


# ---------------------------------------------------------------------------- model and training


def build_model(gpt_args: GPTArguments, tokenizer: PreTrainedTokenizerBase, file: DataFile) -> GPT2LMHeadModel:
    """Return GPT-2's architecture in the size asked for, with random weights; its config names the text."""
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=gpt_args.context_length,
        n_embd=gpt_args.n_embd,
        n_layer=gpt_args.n_layer,
        n_head=gpt_args.n_head,
        **dict.fromkeys(("embd_pdrop", "resid_pdrop", "attn_pdrop"), gpt_args.dropout),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        base_model_source={"name": "random weights", "source": file.source, "sha256": file.sha256},
    )
    model = GPT2LMHeadModel(config)
    # transformers cannot tell the loss from this class's name and would warn.
    model.loss_type = "ForCausalLM"
    # The output layer is the embedding: `Trainer` would report it as missing from the checkpoint.
    model._keys_to_ignore_on_save = ["lm_head.weight"]
    return model


def check_resumed(checkpoint: str, config: GPT2Config) -> None:
    """See to it that a resumed run goes on with the same text and size.

    Raises:
        ConfigurationError: they are others.
    """
    before = AutoConfig.from_pretrained(checkpoint)
    if before.base_model_source["sha256"] != config.base_model_source["sha256"]:
        raise ConfigurationError(f"{checkpoint} was trained on another text; start anew.")
    for name in ("n_layer", "n_head", "n_embd", "n_positions"):
        if getattr(before, name) != getattr(config, name):
            raise ConfigurationError(f"{checkpoint} has {name} {getattr(before, name)}, not {getattr(config, name)}.")


def sample_text(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerBase, prompt: str, tokens: int, seed: int) -> str:
    """Let the model go on with a prompt: sampled at temperature 0.8 from the 40 most likely tokens.

    The random state of the training run is left as it is.
    """
    context = model.config.n_positions
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"] or [tokenizer.eos_token_id]
    # A long prompt loses its beginning, so that what is written still fits.
    ids = torch.tensor([ids[tokens - context :]], device=model.device)
    sampling = GenerationConfig(
        max_new_tokens=tokens,
        do_sample=True,
        temperature=0.8,
        top_k=40,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    was_training = model.training
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(seed)
        written = model.eval().generate(ids, attention_mask=torch.ones_like(ids), generation_config=sampling)[0]
    model.train(was_training)
    return tokenizer.decode(written, skip_special_tokens=True)


def in_one_line(text: str) -> str:
    """Return a text with a stroke for every line break."""
    return " / ".join(" ".join(line.split()) for line in text.splitlines() if line.strip())


def perplexity(loss: float) -> float:
    """Return the exponential of a loss in nats per token; infinite for a run that has diverged."""
    return math.exp(loss) if loss < 700 else math.inf


class SampleCallback(TrainerCallback):
    """After every evaluation, print losses, perplexity and a sample text, and put the text into the log history."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, corpus_args: CorpusArguments):
        self.tokenizer, self.corpus_args = tokenizer, corpus_args

    def on_evaluate(self, args, state, control, model, metrics, **kwargs):
        if not state.is_world_process_zero:
            return
        sample = ""
        # A model that has diverged has no probabilities to draw from.
        if self.corpus_args.sample_tokens and math.isfinite(metrics["eval_loss"]):
            text = sample_text(
                model, self.tokenizer, self.corpus_args.prompt, self.corpus_args.sample_tokens, seed=args.seed
            )
            state.log_history[-1]["sample"] = text
            sample = f"\n  {in_one_line(text)}"
        train_losses = (entry["loss"] for entry in reversed(state.log_history) if "loss" in entry)
        train_loss = next((f"train loss {loss:.3f}, " for loss in train_losses), "")
        print(
            f"\nStep {state.global_step}: {train_loss}validation loss {metrics['eval_loss']:.3f}, "
            f"perplexity {perplexity(metrics['eval_loss']):,.1f}{sample}",
            flush=True,
        )


def with_perplexity(log_history: Sequence[dict]) -> list[dict]:
    """Return the log with the exponentials of its losses."""
    return [
        entry
        | {key.replace("loss", "perplexity"): perplexity(entry[key]) for key in ("loss", "eval_loss") if key in entry}
        for entry in log_history
    ]


# ---------------------------------------------------------------------------- saving


def model_card(report: dict) -> str:
    """Write the README.md of the saved model from the report of the run that made it."""
    replaced = f"; {report['corpus']['instead_of']} could not be reached" if report["corpus"]["instead_of"] else ""
    untrained = f" (untrained {report['untrained_loss']:.3f})" if report["untrained_loss"] else ""
    samples = "\n".join(f"- step {step}: {in_one_line(text)}" for step, text in report["samples"].items())
    return f"""---
library_name: transformers
pipeline_tag: text-generation
---
# A GPT of {report["parameters"]:,} parameters, pretrained on {report["corpus"]["name"]}

GPT-2's architecture, trained from random weights to predict the next token. To learn from, and as a base for
classifiers; what it writes is not to be relied on.

`{report["command"]}`

- Text: {report["corpus"]["name"]}, from {report["corpus"]["source"]} (SHA-256 `{report["corpus"]["sha256"]}`),
  {report["train_tokens"]:,} tokens to train on and {report["validation_tokens"]:,} held out{replaced}
- Tokenizer: {report["tokenizer"]["source"]} (asked for: {report["tokenizer"]["requested"]}), {report["vocabulary"]:,}
  tokens
- Validation loss {report["validation_loss"]:.3f} nats per token{untrained}, perplexity {report["perplexity"]:,.1f},
  at step {report["best_step"]} of {report["steps"]}
- {report["train_seconds"]:.0f} s of training, {report["tokens_per_second"]:,.0f} tokens/s with evaluations, on \
{report["hardware"]}

Samples, with the same random numbers each time:

{samples}
"""


# ---------------------------------------------------------------------------- the run


def pretrain(
    gpt_args: GPTArguments, corpus_args: CorpusArguments, args: PretrainingArguments, instead_of: str | None = None
) -> dict:
    """Train on the corpus, save the model, and return the report that is saved as metrics.json.

    Args:
        instead_of: the corpus that could not be reached.
    """
    started = time.perf_counter()
    check_sizes(gpt_args, corpus_args)
    checkpoint = checkpoint_to_resume(args)
    with args.main_process_first(desc="text and tokenizer"):
        documents, file, corpus_name = load_documents(corpus_args)
        if args.local_process_index == 0:
            check_outputs(args.model_dir, args.loss_pdf, Path(args.output_dir, "metrics.json"))
        parts = dict(zip(("train", "validation"), split_documents(documents, corpus_args.validation_frac), strict=True))
        tokenizer, tokenizer_source = load_tokenizer(gpt_args, parts["train"], checkpoint)
    check_same_everywhere(file.sha256, tokenizer_source)
    windows = {name: to_windows(part, tokenizer, gpt_args.context_length) for name, part in parts.items()}
    tokens = {name: len(part) * gpt_args.context_length for name, part in windows.items()}
    set_seed(args.seed)
    model = build_model(gpt_args, tokenizer, file)
    if checkpoint:
        check_resumed(checkpoint, model.config)
    logger.info("Text: %s (%s)", corpus_name, file.source)
    logger.info("Tokens: %s to train on, %s held out", f"{tokens['train']:,}", f"{tokens['validation']:,}")
    logger.info("Tokenizer: %s, %s tokens", tokenizer_source, f"{len(tokenizer):,}")
    logger.info("Parameters: %s", f"{model.num_parameters():,}")

    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=windows["train"],
        eval_dataset=windows["validation"],
        data_collator=default_data_collator,
        processing_class=tokenizer,
    )
    trainer.add_callback(SampleCallback(tokenizer, corpus_args))
    if args.process_index == 0:
        remove_old_checkpoints(args)
    outcome = trainer.train(resume_from_checkpoint=checkpoint)

    state, best_step = trainer.state, kept_step(trainer)
    losses = {entry["step"]: entry["eval_loss"] for entry in state.log_history if "eval_loss" in entry}
    # A recipe may evaluate never, or not at the last step.
    validation_loss = losses[best_step] if best_step in losses else trainer.evaluate()["eval_loss"]
    seen_per_step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size * gpt_args.context_length
    resumed_at = json.loads(Path(checkpoint, "trainer_state.json").read_text())["global_step"] if checkpoint else 0
    report = {
        **run_facts(),
        "seed": args.seed,
        "corpus": {
            "name": corpus_name,
            "source": file.source,
            "sha256": file.sha256,
            "instead_of": instead_of,
        },
        "tokenizer": {"requested": gpt_args.tokenizer_name, "source": tokenizer_source},
        "parameters": model.num_parameters(),
        "vocabulary": len(tokenizer),
        "train_tokens": tokens["train"],
        "validation_tokens": tokens["validation"],
        "epochs": state.epoch,
        "steps": state.global_step,
        "resumed_at_step": resumed_at,
        "best_step": best_step,
        "untrained_loss": losses.get(0),
        "validation_loss": validation_loss,
        "perplexity": perplexity(validation_loss),
        "train_seconds": outcome.metrics["train_runtime"],
        "tokens_per_second": seen_per_step * (state.global_step - resumed_at) / outcome.metrics["train_runtime"],
        "samples": {entry["step"]: entry["sample"] for entry in state.log_history if "sample" in entry},
    }
    if args.process_index == 0:
        report["total_seconds"] = time.perf_counter() - started
        report["peak_memory_gib"] = peak_memory_gib()
        trained = trainer.accelerator.unwrap_model(trainer.model)
        save_folder(trained, tokenizer, model_card(report), Path(args.model_dir))
        plot_metrics(
            with_perplexity(state.log_history),
            args.loss_pdf,
            f"GPT, {report['parameters']:,} parameters, on {corpus_name}",
            best_step,
            per_step=("Tokens seen", seen_per_step),
            charts={"Loss": ("loss", "eval_loss"), "Perplexity": ("perplexity", "eval_perplexity")},
        )
        write_json(report, Path(args.output_dir, "metrics.json"))
        print(
            f"\nValidation loss {report['validation_loss']:.3f} at step {best_step}, perplexity "
            f"{report['perplexity']:,.1f}, {report['tokens_per_second']:,.0f} tokens/s"
        )
        print(f"Saved {args.model_dir}/, {args.loss_pdf} and {args.output_dir}/metrics.json")
    return report


def pretrain_or_fall_back(
    gpt_args: GPTArguments, corpus_args: CorpusArguments, args: PretrainingArguments, flags: Sequence[str]
) -> dict:
    """Pretrain, or where the corpus cannot be reached by the fallback recipe, under the same flags."""
    try:
        return pretrain(gpt_args, corpus_args, args)
    except UnreachableError as error:
        fallback = corpus_args.fallback_recipe
        # A corpus named on the command line is the one that is wanted.
        if fallback is None or any(word.startswith("--corpus") for word in flags):
            raise
        logger.warning("%s\n%s\nFOLLOWING %s INSTEAD.\n%s", error, "!" * 80, fallback, "!" * 80)
        parsed = parse_arguments([str(Path(__file__).parent / fallback), *flags])
        return pretrain(*parsed, instead_of=corpus_args.corpus)


def main(argv: Sequence[str] | None = None) -> int:
    """Pretrain as the command line says; return the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    parsed = parse_arguments(argv)
    _, flags = split_recipe(argv)
    args = parsed[-1]
    return run_script(lambda: pretrain_or_fall_back(*parsed, flags), args, f"{args.model_dir} and {args.loss_pdf}")


if __name__ == "__main__":
    sys.exit(main())
