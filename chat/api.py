"""The classifier for programs: `POST /api/classify`, `GET /api/health`, and a page that documents them."""

import logging
import secrets
import uuid
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, ConfigDict, Field
from starlette.middleware.base import RequestResponseEndpoint

from chat.batching import BatchingClassifier, BusyError
from chat.settings import MAX_MESSAGE_CHARACTERS, MAX_REQUEST_TEXTS
from chat.texts import label_name

logger = logging.getLogger(__name__)


class ClassificationRequest(BaseModel):
    """One text or a list of them."""

    # Otherwise a mistyped key would be ignored without a word, and `true` would be a threshold of 1.
    model_config = ConfigDict(extra="forbid", strict=True)

    texts: str | Annotated[list[str], Field(min_length=1, max_length=MAX_REQUEST_TEXTS)] = Field(
        description=(
            f"One text, or up to {MAX_REQUEST_TEXTS}; "
            f"none empty, none longer than {MAX_MESSAGE_CHARACTERS:,} characters."
        ),
        examples=[["You have won a prize! Call 09061701461 now", "See you at seven?", "晚上七点老地方见"]],
    )
    threshold: float | None = Field(
        default=None, ge=0, le=1, description="Probability from which class 1 is given; by default the adapter's own."
    )
    exact: bool = Field(
        default=False,
        description="Let both models read every text of a list. Otherwise TF-IDF alone answers what it is sure of.",
    )


class Answer(BaseModel):
    """The answer to one text."""

    label: str = Field(examples=["spam"])
    label_zh: str = Field(examples=["垃圾信息"])
    probability: float = Field(description="Of `label`, between 0 and 1.", examples=[0.998])
    truncated: bool = Field(description="Whether the text was too long, so that its end was not read.")
    answered_by: str = Field(description="`language model`, `TF-IDF` or `both`.", examples=["both"])
    other_language: bool = Field(
        description="Whether the text is in a language that the classifier did not learn; trust the answer less then."
    )
    less_sure: bool = Field(description="Whether the answer is so near to the threshold that it is often wrong.")


class ClassificationResponse(BaseModel):
    """The answers, in the order of the texts."""

    results: list[Answer]


class Health(BaseModel):
    """What is served."""

    status: str = Field(examples=["ok"])
    base_model: str
    labels: list[str]
    max_tokens: int = Field(description="Tokens of a text that the language model reads.")


def log_failure(what: str) -> str:
    """Log the current exception, and return an error number that a person can quote."""
    error_id = uuid.uuid4().hex[:8]
    logger.exception("%s failed (error %s)", what, error_id)
    return error_id


def same_credentials(given: tuple[str, str], known: tuple[str, str]) -> bool:
    """Return whether name and password are right. It takes constant time, so that the time reveals nothing."""
    return all([secrets.compare_digest(one.encode(), other.encode()) for one, other in zip(given, known, strict=True)])


def create_api(classifier: BatchingClassifier, credentials: tuple[str, str] | None) -> FastAPI:
    """Return the application to mount under `/api`.

    Args:
        classifier: answers the requests; the chat uses the same one, so both share batches.
        credentials: name and password that `/classify` requires (HTTP Basic); None lets everyone in.
    """
    loaded = classifier.classifier
    # FastAPI's own documentation page loads its scripts from another server; this one brings them along.
    api = FastAPIOffline(title="Text classifier", version="1.0", redoc_url=None)

    @api.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        # Leave out the input, which FastAPI sends back by default: it may be long or private.
        details = [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()]
        return JSONResponse({"detail": "; ".join(details)}, status_code=422)

    @api.middleware("http")
    async def only_plain_json(request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Refuse a body in another format by its name; FastAPI would only say that it is not a dictionary."""
        if (coding := request.headers.get("Content-Encoding", "identity")) != "identity":
            refusal = f"A body with Content-Encoding: {coding} is not read; send it plain"
        elif request.method == "POST" and "json" not in request.headers.get("Content-Type", ""):
            refusal = "The body must be JSON; send the header Content-Type: application/json"
        else:
            return await call_next(request)
        return JSONResponse({"detail": refusal}, 415)

    def signed_in(given: Annotated[HTTPBasicCredentials, Depends(HTTPBasic())]) -> None:
        if not same_credentials((given.username, given.password), credentials):
            raise HTTPException(401, "Wrong name or password", {"WWW-Authenticate": "Basic"})

    @api.post("/classify", dependencies=[Depends(signed_in)] if credentials else [])
    async def classify(request: ClassificationRequest) -> ClassificationResponse:
        """Classify one text or up to 256."""
        texts = [request.texts] if isinstance(request.texts, str) else request.texts
        for number, text in enumerate(texts, 1):
            if len(text) > MAX_MESSAGE_CHARACTERS:
                raise HTTPException(422, f"Text {number} is longer than {MAX_MESSAGE_CHARACTERS:,} characters")
        threshold = loaded.settings.decision_threshold if request.threshold is None else request.threshold
        try:
            answers = await classifier.classify([text.strip() for text in texts], threshold, request.exact)
        except BusyError:
            raise HTTPException(503, "Too many requests are waiting", {"Retry-After": "10"}) from None
        except Exception:
            raise HTTPException(500, f"Classification failed (error {log_failure('Classification')})") from None
        if None in answers:
            raise HTTPException(422, f"Text {answers.index(None) + 1} is empty")
        return ClassificationResponse(
            results=[
                Answer(
                    label=answer.label_at(threshold),
                    label_zh=label_name(answer.label_at(threshold), "zh"),
                    probability=answer.probability_at(threshold),
                    truncated=answer.truncated,
                    answered_by=answer.answered_by,
                    other_language=answer.other_language,
                    less_sure=answer.less_sure_at(threshold),
                )
                for answer in answers
            ]
        )

    @api.head("/health", include_in_schema=False)
    @api.get("/health")
    async def health() -> Health:
        """Say whether the server is up and what it serves."""
        max_tokens = loaded.tokenizer.model_max_length
        return Health(status="ok", base_model=loaded.base_name, labels=loaded.labels, max_tokens=max_tokens)

    return api
