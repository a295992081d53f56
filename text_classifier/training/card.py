"""Write the model card, which describes a run to people who find the folder that it saved."""

from huggingface_hub import EvalResult, ModelCardData
from scipy.stats import binomtest

from text_classifier.tfidf import TFIDF_MAX_CHARACTERS

# Sentences about the data sets that this project knows.
KNOWN_LIMITS = {
    "sms_spam": (
        "The collection's messages are in English and date from before 2012, many from Singapore: other languages and "
        "modern phishing are not in it."
    ),
    "imdb": (
        "The reviews are in English, from before 2011, and clearly for or against a film: lukewarm ones are not in "
        "the data. Reviews of one film stand in several splits."
    ),
}
DATA_LICENCES = {
    "sms_spam": (
        " The SMS Spam Collection (Almeida and Gómez Hidalgo, 2011) is published by the UCI Machine Learning "
        "Repository under CC BY 4.0."
    ),
    "imdb": (
        " The IMDB reviews (Maas et al., 2011) are published by Stanford for research, without a licence; their "
        "authors' rights remain."
    ),
}


def model_card(report: dict) -> str:
    """Return the text of an adapter folder's README.md, made from the report of the run that saved the folder."""
    sections = {
        "Intended use": _intended_use(report),
        "Use": _use(report),
        "Figures": f"{_halves(report)}\n\n{report['table']}\n\n{_explain_figures(report)}",
        "Training data": _training_data(report["data"]),
        "Training": _training(report),
        "Limits": "\n".join(f"- {limit}" for limit in _limits(report)),
        "Licences": _licences(report),
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    return f"---\n{_metadata(report).to_yaml()}\n---\n{_title(report)}\n\n{body}\n"


def _is_lora(report: dict) -> bool:
    return report["training"]["tuning"] == "lora"


def _has_tfidf(report: dict) -> bool:
    return report["joint"] is not None


def _metadata(report: dict) -> ModelCardData:
    """Return the metadata that the Hub reads: base model, licence, language, and the figures of the test split."""
    base, data, test = report["base_model"], report["data"], report["results"][report["saved"]]["test"]
    tuning, positive = report["training"]["tuning"], report["label_names"][1]
    return ModelCardData(
        base_model=base["name"],
        library_name="peft" if _is_lora(report) else "transformers",
        pipeline_tag="text-classification",
        language=data["languages"],
        license=base["license"],
        tags=["text-classification", *(["lora"] if _is_lora(report) else [])],
        model_name=f"{base['name'].split('/')[-1]}-{tuning}-{positive}",
        eval_results=[
            EvalResult(
                task_type="text-classification",
                dataset_name=data["name"],
                dataset_type=data["dataset"],
                dataset_split="test",
                metric_type=metric,
                metric_value=round(test[metric], 4),
            )
            for metric in ("accuracy", "f1", "roc_auc")
            if test[metric] is not None
        ],
    )


def _title(report: dict) -> str:
    base, (negative, positive) = report["base_model"], report["label_names"]
    trained_part, with_tfidf = report["training"]["trained_part"], _has_tfidf(report)
    what = (
        f"A LoRA adapter (PEFT) that makes `{base['name']}` tell"
        if _is_lora(report)
        else f"A whole model, {trained_part} trained: `{base['name']}` tells"
    )
    what += f" **{positive}** (1) from **{negative}** (0)"
    what += ", and a TF-IDF model that answers with it." if with_tfidf else "."
    if base["fallback_used"]:
        what += (
            f"\n\n> The recipe asked for `{base['requested']}`, which this machine could not reach; "
            f"the fallback base `{base['name']}` was used instead. So there are no figures of `{base['requested']}`."
        )
    return f"# {base['name']} + {trained_part}{' + TF-IDF' if with_tfidf else ''}: {negative} or {positive}\n\n{what}"


def _intended_use(report: dict) -> str:
    negative, positive = report["label_names"]
    kind = "film reviews" if report["data"]["dataset"] == "imdb" else "short messages"
    guard = ", and not the only guard against fraud" if report["data"]["dataset"] == "sms_spam" else ""
    return (
        f"Labelling {kind} as {positive} or {negative}, with a person able to correct it. Not for deciding anything "
        f"about a person{guard}."
    )


# How other programs load what a run saved. From the folder's config, the base model gets the number of layers that the
# adapter was trained with, the names of the labels, and the pad token.
ADAPTER_USE = """```python
from peft import PeftModel
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

folder = "lora_model"  # the folder of this card, or its name on the Hub
tokenizer, config = AutoTokenizer.from_pretrained(folder), AutoConfig.from_pretrained(folder)
base = AutoModelForSequenceClassification.from_pretrained("{base}", config=config)
model = PeftModel.from_pretrained(base, folder)
```"""
MODEL_USE = """```python
from transformers import pipeline

folder = "model"  # the folder of this card, or its name on the Hub
classify = pipeline("text-classification", model=folder, truncation=True)
```"""


def _use(report: dict) -> str:
    code = ADAPTER_USE.format(base=report["base_model"]["name"]) if _is_lora(report) else MODEL_USE
    program = "Plain PEFT loads" if _is_lora(report) else "transformers alone loads"
    if not _has_tfidf(report):
        return f"{program} it as follows.\n\n{code}"
    return (
        "`load_tokenizer_and_model` and `classify` of the package `text_classifier` give the answers of both models. "
        f"{program} the language model alone:\n\n{code}"
    )


def _halves(report: dict) -> str:
    """Return what each model alone and both have, and what that means, before any table."""
    return " ".join([report["summary"], *(f"**{warning}**" for warning in report["warnings"])])


def _explain_figures(report: dict) -> str:
    sentences = [
        "*left out* are messages of the larger class that balancing set aside; *natural* are those and the test split "
        "together, at the natural ratio of the classes; *train* are some training messages. FPR is the false-positive "
        "rate, ECE the expected calibration error of the probabilities.",
        "TF-IDF is a logistic regression on TF-IDF features, trained on the same messages.",
    ]
    if joint := report["joint"]:
        sentences.append(
            "*after* is the language model alone, as plain PEFT and transformers load it. *after + TF-IDF* adds "
            f"{joint['language_model']:g} times its log odds, {joint['tfidf']:g} times those of TF-IDF, which is saved "
            f"in the same folder, and {joint['intercept']:g}. `text_classifier` and the chat answer so. In files, "
            f"TF-IDF alone answers where its log odds are {report['early_exit']['bound']:g} or more from the threshold."
        )
    if report["training"]["best_checkpoint"]:
        sentences.append(
            "The checkpoint was chosen on validation messages, so judge by the test and the left-out messages."
        )
    if report["data"]["protocol"] == "deduplicated":
        sentences.append("Training saw none of the messages counted here.")
    else:
        sentences.append("Duplicates were left in: copies of some messages counted here were trained on.")
    return " ".join(sentences) + _explain_threshold(report)


def _explain_threshold(report: dict) -> str:
    if (threshold := report["decision_threshold"]) == 0.5:
        return ""
    scope = (
        "It holds for what both models say together, not for the language model that plain PEFT loads."
        if _has_tfidf(report)
        else "Plain PEFT does not apply it: compare the softmax probability of class 1 with it."
    )
    return (
        f"\n\nA message is called {report['label_names'][1]} when its probability reaches {threshold:g}, chosen for "
        "few false positives on validation messages and stored as `decision_threshold` in text_classifier.json; the "
        f"other models in the table have theirs. {scope}"
    )


def _training_data(data: dict) -> str:
    return f"{data['name']}, from: {data['source']} (SHA-256 of the file `{data['sha256']}`). {data['description']}"


def _training(report: dict) -> str:
    base, training = report["base_model"], report["training"]
    layers = f"; its first {base['layers']} layers" if base["layers"] else ""
    kept = (
        f"best checkpoint at step {training['best_step']}" if training["best_checkpoint"] else "the last step's weights"
    )
    on_gpu = f" (GPU: {report['peak_gpu_memory_gib']:.1f} GiB)" if "peak_gpu_memory_gib" in report else ""
    facts = [
        f"Base weights: `{base['name']}` from {base['source']}, SHA-256 `{base['sha256']}`{layers}",
        f"Trainable parameters: {training['trainable_parameters']:,} of {training['total_parameters']:,}",
        f"{training['epochs']:g} epochs, {training['steps']} steps, {kept}, seed {report['seed']}",
        f"{training['train_seconds']:.0f} s of training, {report['total_seconds']:.0f} s in all, peak memory "
        f"{report['peak_memory_gib']:.1f} GiB{on_gpu}, on {report['hardware']}",
        ", ".join(f"{name} {version}" for name, version in report["versions"].items()),
    ]
    return f"`{report['command']}`\n\n" + "\n".join(f"- {fact}" for fact in facts)


def _limits(report: dict) -> list[str]:
    data, layers = report["data"], report["base_model"]["layers"]
    limits = [KNOWN_LIMITS[data["dataset"]]] if data["dataset"] in KNOWN_LIMITS else []
    for split, kind in (("present_day", "modern"), ("chinese", "Chinese")):
        if made_up := data["split_sizes"].get(split):
            limits.append(
                f"The {made_up:,} {kind} messages were made up for this project: one idea of how banks, carriers and "
                "swindlers write."
            )
    test = report["results"][report["saved"]]["test"]
    low, high = binomtest(round(test["accuracy"] * test["n"]), test["n"]).proportion_ci(method="wilson")
    limits.append(
        f"The test split has {test['n']} messages: its accuracy is known to lie between {100 * low:.1f} and "
        f"{100 * high:.1f} % (Wilson's 95 % interval)."
    )
    rest = (
        f", the TF-IDF model {TFIDF_MAX_CHARACTERS:,} characters."
        if _has_tfidf(report)
        else "; it does not look at the rest."
    )
    limits.append(f"The language model reads {data['max_length']} tokens of a message{rest}")
    if _is_lora(report):
        limits.append(
            "An adapter belongs to the exact base weights it was trained on (source and SHA-256 above); on other "
            "copies of the same model the probabilities differ a little."
        )
    if _is_lora(report) and layers:
        limits.append(
            f"It uses only the first {layers} layers of its base. Loaded in another way than above, it may answer with "
            "all of them, wrongly and without a warning."
        )
    if _has_tfidf(report):
        limits.append(
            "`tfidf_vocabulary.json` holds the words, pairs of words and groups of letters of the training messages in "
            "plain: do not publish it where those are private."
        )
    return limits


def _licences(report: dict) -> str:
    product, licence = "adapter" if _is_lora(report) else "model", report["base_model"]["license"]
    own = f"The {product} follows its base model's licence ({licence or 'see the base model'})."
    return own + DATA_LICENCES.get(report["data"]["dataset"], "")
