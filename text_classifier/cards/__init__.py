"""Model cards: a template for each kind of model, filled with the facts of its run."""

from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData


def fill(template: str, metadata: ModelCardData, **facts) -> str:
    """Return a model card, made from the template of this folder that has the name."""
    text = (Path(__file__).parent / f"{template}.md.jinja").read_text(encoding="utf-8")
    return str(ModelCard.from_template(metadata, template_str=text, **facts)) + "\n"
