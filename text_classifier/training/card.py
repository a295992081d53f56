"""The model card of a run, which describes it to people who find the folder that it saved."""

from huggingface_hub import EvalResult, ModelCardData
from scipy.stats import binomtest

from text_classifier import cards
from text_classifier.tfidf import TFIDF_MAX_CHARACTERS


def model_card(report: dict) -> str:
    """Return the text of a folder's README.md, made from the report of the run that saved the folder."""
    test = report["results"][report["saved"]]["test"]
    interval = binomtest(round(test["accuracy"] * test["n"]), test["n"]).proportion_ci(method="wilson")
    shown = {
        "base": report["base_model"],
        "test": test,
        "interval": [f"{100 * bound:.1f}" for bound in interval],
        "tfidf_characters": TFIDF_MAX_CHARACTERS,
    }
    return cards.fill("trained", _metadata(report), **report | shown)


def _metadata(report: dict) -> ModelCardData:
    """Return the metadata that the Hub reads: base model, licence, language, and the figures of the test split."""
    base, data, test = report["base_model"], report["data"], report["results"][report["saved"]]["test"]
    tuning, positive = report["training"]["tuning"], report["label_names"][1]
    return ModelCardData(
        base_model=base["name"],
        library_name="peft" if tuning == "lora" else "transformers",
        pipeline_tag="text-classification",
        language=data["languages"],
        license=base["license"],
        tags=["text-classification", *(["lora"] if tuning == "lora" else [])],
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
