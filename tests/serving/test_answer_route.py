"""`/v1/answer` gives what `model.answer` gives."""

import json
from pathlib import Path
from typing import Any

import pytest
import serving
from tiny_model import tiny_model

from kebyt5_xm.model.cross_modal import CrossModalT5

pytest.importorskip("fastapi")

IMAGE, AUDIO, TEXT = serving.IMAGE, serving.AUDIO, serving.TEXT


@pytest.fixture(scope="module")
def model() -> CrossModalT5:
    return tiny_model()


@pytest.fixture(scope="module")
def client(model):
    with serving.client(model) as opened:
        yield opened


def ask(client: Any, segments: Any, **arguments: Any) -> dict[str, Any]:
    response = client.post("/v1/answer", json={"segments": segments, "max_new_tokens": 12, **arguments})
    assert response.status_code == 200, response.text
    return response.json()


def texts(found: dict[str, Any]) -> list[str]:
    return [answer["text"] for answer in found["answers"]]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, Path]:
    return serving.write_files(tmp_path_factory.mktemp("files"))


def test_texts_images_and_recordings_are_answered_as_in_python(client, model, files):
    image, audio = files
    cases = [
        ("안녕", "안녕"),
        ([IMAGE, TEXT], [image, " ko:"]),
        ([TEXT, AUDIO, IMAGE | {"modality": "image"}], [" ko:", audio, image]),
    ]
    for asked, segments in cases:
        found = ask(client, asked)
        assert texts(found) == [model.answer(segments, max_new_tokens=12)]
        assert found["model"] == "tiny"
        assert found["usage"]["input_ids"] == model.processor(segments)["input_ids"].shape[1]
        assert found["usage"]["output_bytes"] == len(texts(found)[0].encode())


def test_searches_are_those_of_python(client, model):
    for arguments in (
        {"n": 3, "num_beams": 4},
        {"num_beams": 3},
        {"valid_utf8": False},
        {"temperature": 0.0},
    ):
        expected = model.answer("안녕", max_new_tokens=12, **arguments)
        assert texts(ask(client, "안녕", **arguments)) == (
            expected if isinstance(expected, list) else [expected]
        )
    labels = ["개", "새"]
    found = ask(client, "안녕", labels=labels)
    assert found["probabilities"] == pytest.approx(model.classify("안녕", labels))
    assert texts(found) == [model.answer("안녕", labels=labels)]


def test_a_seed_gives_the_same_samples_again(client):
    sampled = {"n": 3, "temperature": 3.0}
    first, again = (texts(ask(client, "안녕", seed=5, **sampled)) for _ in range(2))
    assert first == again
    assert texts(ask(client, "안녕", seed=6, **sampled)) != first
    chosen = texts(ask(client, "안녕", seed=5, choose="chrf", **sampled))
    assert len(chosen) == 1
    assert chosen[0] in first


def test_details_are_the_hypothesis(client, model):
    (answer,) = ask(client, [IMAGE, TEXT], details=True)["answers"]
    (plain,) = ask(client, [IMAGE, TEXT])["answers"]
    assert set(plain) == {"text", "finish_reason"}
    expected = model.answer(["안녕"], details=True, max_new_tokens=12).as_dict()
    assert set(answer) == set(expected)
    (found,) = ask(client, "안녕", details=True)["answers"]
    assert found["log_probability"] == pytest.approx(expected["log_probability"], rel=1e-4)


@pytest.mark.parametrize("details", [False, True])
def test_a_stream_is_the_answer_in_pieces(client, model, details):
    body = {"segments": "안녕", "max_new_tokens": 12, "stream": True, "details": details}
    with client.stream("POST", "/v1/answer", json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        events = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert events.pop() == "[DONE]"
    *pieces, last = map(json.loads, events)
    expected = model.answer("안녕", max_new_tokens=12)
    assert "".join(piece["text"] for piece in pieces) == expected == last["answers"][0]["text"]
    assert len(pieces) > 1
    assert ("confidence" in last["answers"][0]) is details


def test_three_and_a_dot_is_three_as_in_json_schema(client):
    assert ask(client, "안녕", max_new_tokens=3.0)["usage"]["output_bytes"] <= 3
    assert client.post("/v1/answer", json={"segments": "x", "max_new_tokens": 3.5}).status_code == 400


def test_texts_are_never_paths(client, model, tmp_path):
    path = tmp_path / "a b.png"
    path.write_bytes(serving.png())
    for text in (str(path), str(tmp_path / "none.png"), "a.png"):
        assert ask(client, text)["usage"]["input_ids"] == len(text.encode()) + 1
