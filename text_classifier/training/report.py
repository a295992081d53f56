"""What a run reports of itself: the table of results and the model card."""

from huggingface_hub import EvalResult, ModelCardData
from scipy.stats import binomtest

from text_classifier.tfidf import MAX_CHARACTERS

# What is trained, as titles say it.
TUNINGS = {
    "lora": "LoRA",
    "head": "new head",
    "last_block": "last block",
    "last_two_blocks": "last two blocks",
    "full": "all layers",
}


LICENCES = {
    "gpt2": "mit",
    "openai-community/gpt2": "mit",
    "distilbert-base-uncased": "apache-2.0",
    "distilbert/distilbert-base-uncased": "apache-2.0",
    "sentence-transformers/all-MiniLM-L6-v2": "apache-2.0",
    "HuggingFaceTB/SmolLM2-135M-Instruct": "apache-2.0",
}


# What a model card says of the data sets that are known.
SEEN = {
    "sms_spam": (
        "The collection's messages are in English and date from before 2012, many from Singapore: other languages and "
        "present-day phishing are not in it."
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


def results_table(results: dict[str, dict[str, dict]]) -> str:
    """Lay out `{model: {split: metrics}}` as a Markdown table, one row per model and split.

    FPR is the false-positive rate, ECE the expected calibration error, the last column the confusion matrix.
    """
    header = ["Model", "Split", "n", "Loss", "Acc %", "Prec %", "Rec %", "F1 %", "AUC", "FPR %", "ECE %", "TN/FP/FN/TP"]

    def percent(value: float | None) -> str:
        return "–" if value is None else f"{100 * value:.2f}"

    rows = []
    for split in next(iter(results.values())):
        for model, metrics_of in results.items():
            metrics = metrics_of[split]
            if not metrics["n"]:
                continue
            row = [model, split.replace("_", " "), str(metrics["n"]), f"{metrics['loss']:.3f}"]
            row += [percent(metrics[name]) for name in ("accuracy", "precision", "recall", "f1")]
            row += ["–" if metrics["roc_auc"] is None else f"{metrics['roc_auc']:.4f}"]
            row += [percent(metrics["false_positive_rate"]), percent(metrics["calibration_error"])]
            row += ["/".join(str(count) for counts in metrics["confusion_matrix"] for count in counts)]
            rows.append(row)
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(cells: list[str]) -> str:
        padded = [
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    ruler = ["-" * width if column < 2 else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    return "\n".join(line(row) for row in [header, ruler, *rows])


def model_card(report: dict) -> str:
    """Write the README.md of an adapter folder from the report of the run that made it."""
    base, data, training = report["base_model"], report["data"], report["training"]
    lora, trained_part = training["tuning"] == "lora", training["trained_part"]
    negative, positive = report["label_names"]
    test = report["results"][report["saved"]]["test"]
    low, high = binomtest(round(test["accuracy"] * test["n"]), test["n"]).proportion_ci(method="wilson")
    card_data = ModelCardData(
        base_model=base["name"],
        library_name="peft" if lora else "transformers",
        pipeline_tag="text-classification",
        language=None if data["dataset"] == "custom" else "en",
        license=base["license"],
        tags=["text-classification", *(["lora"] if lora else [])],
        model_name=f"{base['name'].split('/')[-1]}-{training['tuning']}-{positive}",
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
    fallback_note = (
        f"\n\n> The recipe asked for `{base['requested']}`, which this machine could not reach; "
        f"the fallback base `{base['name']}` was used instead."
        if base["fallback_used"]
        else ""
    )
    kind = "film reviews" if data["dataset"] == "imdb" else "short messages"
    guard = ", and not the only guard against fraud" if data["dataset"] == "sms_spam" else ""
    layers_note = f"; its first {base['layers']} layers" if base["layers"] else ""
    explanation = (
        "*left out* are messages of the larger class that balancing set aside, *natural* those and the test split "
        "together; FPR is the false-positive rate, ECE the expected calibration error of the probabilities. "
        "TF-IDF rows are a logistic regression on TF-IDF features, trained on the messages named in the row. "
    )
    together = report["saved"] != "after"
    if together:
        explanation += (
            "*after* is the language model alone, which is what plain PEFT and transformers load; *after + TF-IDF* "
            f"adds {report['language_model_weight']:g} times its log odds to those of the TF-IDF model in the last "
            "row, which is saved beside it, and is what `text_classifier.py` and the chat answer with. "
        )
    kept = "the last step's weights"
    if training["best_checkpoint"]:
        explanation += "The checkpoint was chosen on validation messages, so judge by the other two splits. "
        kept = f"best checkpoint at step {training['best_step']}"
    if data["protocol"] == "deduplicated":
        explanation += "Training saw none of the messages counted here."
    else:
        explanation += "Duplicates were left in: copies of some messages counted here were trained on."
    if (threshold := report["decision_threshold"]) != 0.5:
        explanation += (
            f"\n\nA message is called {positive} when its probability reaches {threshold:g}, chosen for few false "
            "positives on validation messages and stored as `decision_threshold` in config.json; the other models in "
            "the table have theirs. "
        )
        explanation += (
            "It holds for what both models say together, not for the language model that plain PEFT loads."
            if together
            else "Plain PEFT does not apply it: compare the softmax probability of class 1 with it."
        )
    limits = [
        f"The test split has {test['n']} messages: its accuracy is known to lie between {100 * low:.1f} and "
        f"{100 * high:.1f} % (Wilson's 95 % interval).",
        f"The language model reads {data['max_length']} tokens of a message"
        + (f", the TF-IDF model {MAX_CHARACTERS:,} characters." if together else "; what follows is not looked at."),
    ]
    if lora:
        limits.append(
            "An adapter belongs to the exact base weights it was trained on (source and SHA-256 above); on other "
            "copies of the same model the probabilities differ a little."
        )
    if data["dataset"] in SEEN:
        limits.insert(0, SEEN[data["dataset"]])
    if today := data["split_sizes"].get("present_day"):
        limits.insert(
            1,
            f"The messages of today are {today:,} that were made up for this project: one idea of how banks, carriers "
            "and swindlers write.",
        )
    if lora and base["layers"]:
        limits.append(
            f"It uses only the first {base['layers']} layers of its base. Plain PEFT has to be told so "
            f"(`from_pretrained(..., num_hidden_layers={base['layers']})`), or it answers with all of them."
        )
    if together:
        limits.append(
            "`tfidf_vocabulary.json` holds the words, pairs of words and groups of letters of the training messages in "
            "plain: do not publish it where those are private."
        )
    product = "adapter" if lora else "model"
    licences = f"The {product} follows its base model's licence ({base['license'] or 'see the base model'})."
    licences += DATA_LICENCES.get(data["dataset"], "")
    return f"""---
{card_data.to_yaml()}
---
# {base["name"]} + {trained_part}{" + TF-IDF" if together else ""}: {negative} or {positive}

{"A LoRA adapter (PEFT) that makes" if lora else f"A whole model, {trained_part} trained:"} `{base["name"]}` \
{"tell" if lora else "tells"} **{positive}** (1) from **{negative}** (0)\
{", and a TF-IDF model that answers with it" if together else ""}.{fallback_note}

## Intended use

Labelling {kind} as {positive} or {negative}, with a person able to correct it. Not for deciding anything about a
person{guard}.

## Figures

{report["table"]}

{explanation}

## Training data

{data["name"]}, from: {data["source"]} (SHA-256 of the file `{data["sha256"]}`). {data["description"]}

## Training

`{report["command"]}`

- Base weights: `{base["name"]}` from {base["source"]}, SHA-256 `{base["sha256"]}`{layers_note}
- Trainable parameters: {training["trainable_parameters"]:,} of {training["total_parameters"]:,}
- {training["epochs"]:g} epochs, {training["steps"]} steps, {kept}, seed {report["seed"]}
- {training["train_seconds"]:.0f} s of training, {report["total_seconds"]:.0f} s in all, peak memory \
{report["peak_memory_gib"]:.1f} GiB, on {report["hardware"]}
- {", ".join(f"{name} {version}" for name, version in report["versions"].items())}

## Limits

{chr(10).join(f"- {limit}" for limit in limits)}

## Licences

{licences}
"""
