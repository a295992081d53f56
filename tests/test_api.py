"""The HTTP interface: right answers, clear limits, nothing private in an error."""

from dataclasses import replace

import pytest
from fastapi.testclient import TestClient

from chat.api import create_api
from chat.batching import BatchingClassifier
from chat.settings import MAX_MESSAGE_CHARACTERS, MAX_REQUEST_TEXTS
from text_classifier.classifier import Classifier, Settings


@pytest.fixture(scope="module")
def loaded(tiny_review_adapter):
    return Classifier.load(tiny_review_adapter)


@pytest.fixture
def client(loaded):
    with TestClient(create_api(BatchingClassifier(loaded), None), raise_server_exceptions=False) as client:
        yield client


def test_one_text_and_many(client, loaded):
    texts = [f"a film number {number}" for number in range(MAX_REQUEST_TEXTS)]
    results = client.post("/classify", json={"texts": texts}).json()["results"]
    for result, answer in zip(results, loaded.answer(texts), strict=True):
        assert result["label"] == answer.label and not result["truncated"]
        assert result["label_zh"] == {"positive": "正面评论", "negative": "负面评论"}[answer.label]
        spoken_for = answer.positive_probability if answer.label == "positive" else 1 - answer.positive_probability
        assert result["probability"] == pytest.approx(spoken_for, abs=1e-5)
    (alone,) = client.post("/classify", json={"texts": texts[0]}).json()["results"]
    assert alone["label"] == results[0]["label"]
    (long,) = client.post("/classify", json={"texts": "word " * 2000}).json()["results"]
    assert long["truncated"]


def test_a_text_in_another_language_is_marked(loaded):
    learned = replace(loaded, settings=Settings(languages=["en"]))
    client = TestClient(create_api(BatchingClassifier(learned), None))
    texts = ["See you at seven, mum", "Mamá, se me rompió el móvil", "晚上七点老地方见"]
    results = client.post("/classify", json={"texts": texts}).json()["results"]
    assert [result["other_language"] for result in results] == [False, True, True]


def test_threshold_moves_the_label_and_an_answer_near_to_it_is_marked(client):
    def ask(threshold: float) -> dict:
        return client.post("/classify", json={"texts": "so so", "threshold": threshold}).json()["results"][0]

    assert [ask(0)["label"], ask(1)["label"]] == ["positive", "negative"]
    for threshold, near in ((ask(0)["probability"], True), (1e-6, False), (1 - 1e-6, False)):
        assert ask(threshold)["less_sure"] == near


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({}, "Field required"),
        ({"texts": []}, "at least 1"),
        ({"texts": ["a"] * (MAX_REQUEST_TEXTS + 1)}, f"at most {MAX_REQUEST_TEXTS}"),
        ({"texts": ["fine", " \t\n"]}, "Text 2 is empty"),
        ({"texts": "\u200b\x00\u202e"}, "Text 1 is empty"),
        ({"texts": ["fine", "fine", "\ufe0f"]}, "Text 3 is empty"),
        ({"texts": "fine", "treshold": 0.9}, "treshold"),
        ({"texts": "x" * (MAX_MESSAGE_CHARACTERS + 1)}, "longer than 100,000 characters"),
        ({"texts": "fine", "threshold": 1.5}, "less than or equal to 1"),
        ({"texts": "fine", "threshold": True}, "threshold: Input should be a valid number"),
        ({"texts": [{"secret": "value"}]}, "string"),
    ],
)
def test_bad_requests_are_told_what_is_wrong_and_not_what_they_sent(client, body, reason):
    response = client.post("/classify", json=body)
    assert response.status_code == 422 and reason in response.json()["detail"]
    assert "secret" not in response.text


@pytest.mark.parametrize(
    ("headers", "status", "reason"),
    [
        ({}, 415, "Content-Type: application/json"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415, "Content-Type: application/json"),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, 415, "Content-Encoding: gzip is not read"),
        ({"Content-Type": "application/json"}, 422, "JSON decode error"),
    ],
)
def test_a_body_in_another_format_is_refused_by_name(client, headers, status, reason):
    response = client.post("/classify", content=b"{", headers=headers)
    assert response.status_code == status and reason in response.json()["detail"]


def test_errors_show_a_number_and_nothing_else(client, monkeypatch, caplog):
    def fail(*arguments):
        raise RuntimeError("/home/somebody/lora_model is broken")

    monkeypatch.setattr(Classifier, "read", fail)
    response = client.post("/classify", json={"texts": "hello"})
    assert response.status_code == 500 and "somebody" not in response.text
    error_id = response.json()["detail"].split()[-1].rstrip(")")
    assert error_id in caplog.text and "somebody" in caplog.text


def test_a_full_queue_asks_to_come_back(loaded):
    with TestClient(create_api(BatchingClassifier(loaded, max_waiting=3), None)) as client:
        response = client.post("/classify", json={"texts": ["a"] * 4})
    assert response.status_code == 503 and response.headers["Retry-After"]


def test_password_is_asked_for_where_one_is_set(loaded):
    with TestClient(create_api(BatchingClassifier(loaded), ("anna", "geheim"))) as client:
        assert client.get("/health").status_code == 200
        for wrong in (None, ("anna", "falsch"), ("otto", "geheim"), ("ann\u00e4", "")):
            response = client.post("/classify", json={"texts": "hello"}, auth=wrong)
            assert response.status_code == 401 and response.headers["WWW-Authenticate"].startswith("Basic")
        assert client.post("/classify", json={"texts": "hello"}, auth=("anna", "geheim")).status_code == 200


def test_health_and_documentation_come_from_this_server_alone(client):
    head = client.head("/health")  # Monitors ask for it.
    assert head.status_code == 200 and head.content == b""
    served = {"status": "ok", "base_model": "gpt2", "labels": ["negative", "positive"], "max_tokens": 120}
    assert client.get("/health").json() == served
    assert "/classify" in client.get("/openapi.json").json()["paths"]
    page = client.get("/docs").text
    assert "http://" not in page and "https://" not in page
    script = page.split('<script src="')[1].split('"')[0]
    assert client.get(script).status_code == 200
