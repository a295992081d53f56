"""Pretrain a small GPT from scratch on raw text, and print what it writes while it learns.

    python gpt_pretraining.py                                          # a short story, in a minute or two
    python gpt_pretraining.py recipes/gpt_pretraining_chitchat.yaml    # conversations, 6 minutes on two cores
    python gpt_pretraining.py --text_file my_texts/ --n_layer 8        # your own text, another size

A GPT-2 with random weights learns to predict the next token. The result is a standard Hugging Face folder.
The classifier can take it as its base model:

    python gpt_classification_model.py --model_name_or_path ./results/gpt_pretraining/model
"""

import json
import logging
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from huggingface_hub import ModelCardData
from transformers import (
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    default_data_collator,
    set_seed,
)

from text_classifier import cards
from text_classifier.classifier import Settings
from text_classifier.errors import ConfigurationError, UnreachableError
from text_classifier.export import check_login
from text_classifier.extras.pretraining import (
    CorpusArguments,
    GPTArguments,
    PretrainingArguments,
    check_options,
    find_tokenizer,
    load_documents,
    parse_arguments,
    split_documents,
    to_windows,
)
from text_classifier.files import write_json
from text_classifier.training import runs
from text_classifier.training.charts import plot_metrics
from text_classifier.training.config import split_recipe
from text_classifier.training.saving import check_outputs, save_folder
from text_classifier.training.trainer import use_console

logger = logging.getLogger(__name__)

# ---------------------------------------------------------------------------- model and training


def build_model(gpt_args: GPTArguments, tokenizer: PreTrainedTokenizerBase) -> GPT2LMHeadModel:
    """Return a GPT-2 of the chosen size with random weights."""
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=gpt_args.context_length,
        n_embd=gpt_args.n_embd,
        n_layer=gpt_args.n_layer,
        n_head=gpt_args.n_head,
        **dict.fromkeys(("embd_pdrop", "resid_pdrop", "attn_pdrop"), gpt_args.dropout),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = GPT2LMHeadModel(config)
    # transformers does not find the loss by this class's name, and warns unless the loss is named here.
    model.loss_type = "ForCausalLM"
    # The output layer shares the embedding's weights, so a checkpoint has no copy. `Trainer` must not miss one.
    model._keys_to_ignore_on_save = ["lm_head.weight"]
    return model


def sample_text(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerBase, prompt: str, tokens: int, seed: int) -> str:
    """Return a prompt and at most `tokens` tokens that the model adds to it.

    Tokens are sampled at temperature 0.8 from the 40 most likely ones. The random state of the training run
    stays as it is.
    """
    context = model.config.n_positions
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"] or [tokenizer.eos_token_id]
    # Cut the beginning of a long prompt, so that the new tokens still fit into the context.
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
    """Return a text on one line: slashes join its lines, and blank lines are dropped."""
    return " / ".join(" ".join(line.split()) for line in text.splitlines() if line.strip())


def perplexity(loss: float) -> float:
    """Return the exponential of a loss in nats per token; infinity where a diverged run would overflow."""
    return math.exp(loss) if loss < 700 else math.inf


class SampleCallback(TrainerCallback):
    """After every evaluation, print losses, perplexity and a sample text, and add the text to the log history."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, corpus_args: CorpusArguments):
        self.tokenizer, self.prompt, self.tokens = tokenizer, corpus_args.prompt, corpus_args.sample_tokens

    def on_evaluate(self, args, state, control, model, metrics, **kwargs):
        if not state.is_world_process_zero:
            return
        loss, sample = metrics["eval_loss"], ""
        # A diverged model gives probabilities that are not numbers, so nothing can be sampled.
        if self.tokens and math.isfinite(loss):
            # The same seed each time, so the samples differ only by what was learned.
            text = sample_text(model, self.tokenizer, self.prompt, self.tokens, args.seed)
            state.log_history[-1]["sample"] = text
            sample = f"\n  {in_one_line(text)}"
        train_losses = [f"train loss {entry['loss']:.3f}, " for entry in state.log_history if "loss" in entry]
        print(
            f"\nStep {state.global_step}: {''.join(train_losses[-1:])}validation loss {loss:.3f}, "
            f"perplexity {perplexity(loss):,.1f}{sample}",
            flush=True,
        )


def with_perplexity(log_history: Sequence[dict]) -> list[dict]:
    """Return the log history with a perplexity beside every loss."""
    names = {"loss": "perplexity", "eval_loss": "eval_perplexity"}
    return [entry | {names[key]: perplexity(entry[key]) for key in names if key in entry} for entry in log_history]


# ---------------------------------------------------------------------------- the run


def pretrain(
    gpt_args: GPTArguments, corpus_args: CorpusArguments, args: PretrainingArguments, instead_of: str | None = None
) -> dict:
    """Train on the corpus, save the model, and return the report that is saved as metrics.json.

    Args:
        instead_of: the corpus that could not be reached, if this run replaces it; the report names it.
    """
    started = time.perf_counter()
    if args.push_to_hub:
        check_login()
    check_options(gpt_args, corpus_args, args)
    checkpoint, main_process = runs.checkpoint_to_resume(args), args.process_index == 0

    # Text: its end is held out, and the rest is cut into windows of the context's length.
    with args.main_process_first(desc="text and tokenizer"):
        documents, file, corpus = load_documents(corpus_args)
        if args.local_process_index == 0:
            check_outputs(args.model_dir, args.loss_pdf, Path(args.output_dir, "metrics.json"))
        texts, held_out = split_documents(documents, corpus_args.validation_frac)
        tokenizer, tokenizer_source = find_tokenizer(gpt_args, texts, checkpoint)
    runs.check_same_everywhere(file.sha256, tokenizer_source)
    windows, validation = (to_windows(part, tokenizer, gpt_args.context_length) for part in (texts, held_out))
    train_tokens, validation_tokens = (len(part) * gpt_args.context_length for part in (windows, validation))
    facts = {"SHA-256 of the text": file.sha256, "--validation_frac": corpus_args.validation_frac}
    facts |= {f"--{name}": getattr(gpt_args, name) for name in ("n_layer", "n_head", "n_embd", "context_length")}
    facts |= {"--optim": args.optim.value}
    runs.check_same_run(checkpoint, facts)

    set_seed(args.seed)
    model = build_model(gpt_args, tokenizer)
    logger.info("Text: %s (%s)", corpus, file.source)
    logger.info("Tokens: %s to train on, %s held out", f"{train_tokens:,}", f"{validation_tokens:,}")
    logger.info("Tokenizer: %s, %s tokens", tokenizer_source, f"{len(tokenizer):,}")
    logger.info("Parameters: %s", f"{model.num_parameters():,}")
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=windows,
        eval_dataset=validation,
        data_collator=default_data_collator,
        processing_class=tokenizer,
    )
    use_console(trainer)
    trainer.add_callback(SampleCallback(tokenizer, corpus_args))
    if main_process:
        runs.begin_run(args, facts)
    seconds = trainer.train(resume_from_checkpoint=checkpoint).metrics["train_runtime"]

    state, best_step = trainer.state, runs.kept_step(trainer)
    losses = {entry["step"]: entry["eval_loss"] for entry in state.log_history if "eval_loss" in entry}
    # Evaluate now if the recipe never evaluates, or did not evaluate at this step.
    validation_loss = losses[best_step] if best_step in losses else trainer.evaluate()["eval_loss"]
    if not math.isfinite(validation_loss):
        raise ConfigurationError("The loss is no number any more. Try a smaller --learning_rate.")
    resumed_at = json.loads(Path(checkpoint, "trainer_state.json").read_text())["global_step"] if checkpoint else 0
    tokens_per_step = runs.messages_per_step(args) * gpt_args.context_length
    report = {
        "seed": args.seed,
        "corpus": {"name": corpus, "source": file.source, "sha256": file.sha256, "instead_of": instead_of},
        "tokenizer": {"requested": gpt_args.tokenizer_name, "source": tokenizer_source},
        "parameters": model.num_parameters(),
        "vocabulary": len(tokenizer),
        "train_tokens": train_tokens,
        "validation_tokens": validation_tokens,
        "epochs": state.epoch,
        "steps": state.global_step,
        "resumed_at_step": resumed_at,
        "best_step": best_step,
        "untrained_loss": losses.get(0),
        "validation_loss": validation_loss,
        "perplexity": perplexity(validation_loss),
        "train_seconds": seconds,
        "tokens_per_second": tokens_per_step * (state.global_step - resumed_at) / seconds,
        "samples": {entry["step"]: entry["sample"] for entry in state.log_history if "sample" in entry},
        **runs.run_facts(),
        "total_seconds": time.perf_counter() - started,
    }
    if main_process:
        save(report, trainer, tokens_per_step)
    return report


def save(report: dict, trainer: Trainer, tokens_per_step: int) -> None:
    """Save the model with its card, the charts and the report."""
    args, corpus = trainer.args, report["corpus"]
    trained = trainer.accelerator.unwrap_model(trainer.model)
    settings = Settings(base_model={"name": "random weights", "source": corpus["source"], "sha256": corpus["sha256"]})
    metadata = ModelCardData(library_name="transformers", pipeline_tag="text-generation")
    card = cards.fill("pretrained", metadata, in_one_line=in_one_line, **report)
    save_folder(trained, trainer.processing_class, card, Path(args.model_dir), settings)
    plot_metrics(
        with_perplexity(trainer.state.log_history),
        args.loss_pdf,
        f"GPT, {report['parameters']:,} parameters, on {corpus['name']}",
        report["best_step"],
        per_step=("Tokens seen", tokens_per_step),
        charts={"Loss": ("loss", "eval_loss"), "Perplexity": ("perplexity", "eval_perplexity")},
    )
    write_json(report, Path(args.output_dir, "metrics.json"))
    print(
        f"\nValidation loss {report['validation_loss']:.3f} at step {report['best_step']}, perplexity "
        f"{report['perplexity']:,.1f}, {report['tokens_per_second']:,.0f} tokens/s\n"
        f"Saved {args.model_dir}/, {args.loss_pdf} and {args.output_dir}/metrics.json"
    )


def pretrain_or_fall_back(
    gpt_args: GPTArguments, corpus_args: CorpusArguments, args: PretrainingArguments, flags: Sequence[str]
) -> dict:
    """Pretrain; where the corpus cannot be reached, follow the fallback recipe with the same flags.

    Raises:
        UnreachableError: the corpus cannot be reached, and there is no fallback or the flags name the corpus.
    """
    try:
        return pretrain(gpt_args, corpus_args, args)
    except UnreachableError as error:
        fallback = corpus_args.fallback_recipe
        # Someone who names a corpus on the command line wants no other.
        if fallback is None or any(word.startswith("--corpus") for word in flags):
            raise
        logger.warning("%s\n%s\nFOLLOWING %s INSTEAD.\n%s", error, "!" * 80, fallback, "!" * 80)
        parsed = parse_arguments([str(Path(__file__).parent / fallback), *flags])
        return pretrain(*parsed, instead_of=corpus_args.corpus)


def main(argv: Sequence[str] | None = None) -> int:
    """Pretrain with the options of the command line; return the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    parsed = parse_arguments(argv)
    _, flags = split_recipe(argv)
    args = parsed[-1]
    alone = [Path(args.output_dir, "metrics.json"), Path(args.model_dir)]
    outputs = [args.model_dir, args.loss_pdf]
    return runs.run_script(lambda: pretrain_or_fall_back(*parsed, flags), args, outputs, alone)


if __name__ == "__main__":
    sys.exit(main())
