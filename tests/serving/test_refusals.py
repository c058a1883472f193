"""What is refused: by which status, in OpenAI's shape, with a remedy, and the server lives on."""

import json
from typing import Any

import pytest
import serving
from tiny_model import SPECS, tiny_model

pytest.importorskip("fastapi")


@pytest.fixture(scope="module")
def client():
    limits = {
        "max_input_ids": 100,
        "max_new_tokens": 50,
        "max_bytes": 100_000,
        "max_labels": 3,
        "max_answers": 4,
    }
    with serving.client(tiny_model(), **limits) as opened:
        yield opened


def image(raw: bytes) -> list[dict[str, str]]:
    return [{"type": "image", "data": serving.in_base64(raw)}]


def audio(raw: bytes) -> list[dict[str, str]]:
    return [{"type": "audio", "data": serving.in_base64(raw)}]


def error_of(response: Any, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "\n" not in error["message"]
    assert "Traceback" not in error["message"]
    return error


@pytest.mark.parametrize(
    ("segments", "status", "code", "words"),
    [
        ([], 400, "empty", "expected a text"),
        ("", 400, "empty", "expected a text"),
        ([{"type": "text", "text": ""}], 400, "empty", "expected a text"),
        ("x" * 100, 413, "input_too_long", "at most 100; shorten"),
        (image(serving.bomb()), 413, "image_too_large", "178956970 pixels, expected at most 64000000; send"),
        (audio(serving.hour_of_silence()), 413, "audio_too_large", "3600.0 seconds, expected at most 600; send it"),
        (image(b"no image"), 400, "invalid_media", "part 1 cannot be used: found no readable image"),
        (image(serving.png()[:200]), 400, "invalid_media", "truncated"),
        (audio(serving.png()), 400, "invalid_media", "found no readable recording"),
        ([{"type": "array", "data": serving.in_base64(b"x")}], 400, "unknown_modality", "takes 'image' (image)"),
        ([{"type": "image", "data": "ab", "modality": "imag"}], 400, "invalid_value", "no base64"),
        ([image(serving.png())[0] | {"modality": "imag"}], 400, "unknown_modality", "mean 'image'"),
        ([{"type": "image", "data": "https://example.org/a.png"}], 400, "invalid_value", "fetches nothing"),
        ([{"type": "image", "data": "data:image/png;base64,"}], 400, "invalid_value", "without data"),
        ([{"type": "image", "data": ""}], 400, "invalid_value", "empty file"),
        ([{"type": "video", "data": ""}], 400, "invalid_value", "does not match any of the expected tags"),
        ("\ud800", 400, "invalid_value", "half a character"),
    ],
)  # fmt: skip
def test_inputs(client, segments, status, code, words):
    body = json.dumps({"segments": segments}).encode()
    error = error_of(
        client.post("/v1/answer", content=body, headers={"content-type": "application/json"}), status
    )
    assert error["code"] == code
    assert words in error["message"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"max_new_tokens": 51}, "max_new_tokens: found 51, expected at most 50"),
        ({"n": 5, "num_beams": 5}, "n: found 5, expected at most 4"),
        ({"num_beams": 5}, "num_beams: found 5, expected at most 4"),
        ({"labels": ["a", "b", "c", "d"]}, "labels: found 4, expected at most 3"),
        ({"labels": ["a" * 99, "b"]}, "labels: found 102 bytes, expected at most 100"),
        ({"labels": ["a"]}, "label"),
        ({"labels": ["a", "a"]}, "label"),
        ({"labels": ["a", "b"], "n": 2}, "found labels with n"),
        ({"stream": True, "num_beams": 2}, "found stream with"),
        ({"temperature": 1.0, "num_beams": 2}, "found temperature with num_beams"),
        ({"choose": "chrf"}, "choose without n=2"),
        ({"seed": 1}, "seed without a temperature"),
        ({"top_k": 3}, "top_k or top_p without a temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"n": True}, "n: "),
        ({"max_new_token": 3}, "max_new_token: found an argument that is unknown here"),
    ],
)
def test_arguments(client, arguments, words):
    body = json.dumps({"segments": "x", **arguments})
    response = client.post("/v1/answer", content=body, headers={"content-type": "application/json"})
    assert words in error_of(response, 400)["message"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[" * 50_000, b"\xff", b"null", b"[]", b"1" * 10_000, b'{"segments": {}}']
)
@pytest.mark.parametrize("path", ["/v1/answer", "/v1/chat/completions"])
def test_bodies(client, path, body):
    error_of(client.post(path, content=body, headers={"content-type": "application/json"}), 400)


NINES = b"9" * 5000


@pytest.mark.parametrize("path", ["/v1/answer", "/v1/chat/completions"])
@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[" * 50_000,
        b'{"segments": "x", "seed": ' + NINES + b"}",
        b'{"segments": "\xff"}',
        b"",
        b'{"segments": "x",}',
        b"[]",
    ],
)
def test_what_is_no_json_is_said_with_a_remedy(client, path, body):
    error = error_of(client.post(path, content=body, headers={"content-type": "application/json"}), 400)
    assert error["code"] == "invalid_json"
    assert "correct it" in error["message"] or "expected a JSON object" in error["message"]


def test_json_of_another_type_is_said(client):
    error = error_of(client.post("/v1/answer", content=b"{}", headers={"content-type": "text/plain"}), 400)
    assert "sent with 'Content-Type: application/json'" in error["message"]


def test_lists_have_a_most():
    part, message = {"type": "text", "text": ""}, {"role": "user", "content": ""}
    asked = [
        ("/v1/answer", {"segments": [part] * 4097}),
        ("/v1/answer", {"segments": "x", "labels": [""] * 4097}),
        ("/v1/answer", {"segments": [{"type": "gaps", "pieces": [""] * 4097}]}),
        ("/v1/chat/completions", {"model": "tiny", "messages": [message] * 4097}),
        ("/v1/chat/completions", {"model": "tiny", "messages": [message | {"content": [part] * 4097}]}),
    ]
    with serving.client(tiny_model({})) as client:
        for path, body in asked:
            assert "4096" in error_of(client.post(path, json=body), 400)["message"]


def test_a_large_body_is_refused_whether_or_not_it_says_its_length(client):
    for content in (b" " * 100_001, iter([b" " * 60_000] * 2)):
        error = error_of(client.post("/v1/answer", content=content), 413)
        assert "more than 100000 bytes" in error["message"]


def test_other_paths_and_methods(client):
    assert error_of(client.get("/v1/nothing"), 404)["code"] == "not_found"
    assert error_of(client.get("/v1/answer"), 405)["code"] == "method_not_allowed"
    assert error_of(client.get("/v1/models/other"), 404)["code"] == "model_not_found"


URL, TALK = {"type": "image_url"}, {"type": "input_audio"}


@pytest.mark.parametrize(
    ("content", "status", "code", "words"),
    [
        ("", 400, "empty", "expected a text"),
        ([URL | {"image_url": {"url": serving.data_url(b"no image")}}], 400, "invalid_media", "no readable image"),
        ([URL | {"image_url": {"url": serving.data_url(serving.bomb())}}], 413, "image_too_large", "send a smaller"),
        ([TALK | {"input_audio": {"data": serving.in_base64(serving.hour_of_silence())}}], 413, "audio_too_large",
         "send it in pieces"),
        ([TALK | {"input_audio": {"data": "", "format": "wav"}}], 400, "invalid_value", "empty file"),
        ("x" * 100, 413, "input_too_long", "at most 100; shorten"),
    ],
)  # fmt: skip
def test_inputs_of_chats(client, content, status, code, words):
    asked = {"model": "tiny", "messages": [{"role": "user", "content": content}]}
    error = error_of(client.post("/v1/chat/completions", json=asked), status)
    assert error["code"] == code
    assert words in error["message"]


@pytest.mark.parametrize(
    ("raw", "status", "code", "words"),
    [
        (serving.hour_of_silence(), 413, "audio_too_large", "3600.0 seconds, expected at most 600; send it"),
        (serving.png(), 400, "invalid_media", "no readable recording"),
        (b"", 400, "invalid_value", "empty file"),
    ],
)
def test_recordings_to_transcribe(client, raw, status, code, words):
    sent = {"data": {"model": "tiny"}, "files": {"file": ("a.wav", raw)}}
    error = error_of(client.post("/v1/audio/transcriptions", **sent), status)
    assert error["code"] == code
    assert words in error["message"]


def test_a_modality_that_the_model_lacks():
    with serving.client(tiny_model({"image": SPECS["image"]})) as client:
        error = error_of(client.post("/v1/answer", json={"segments": audio(serving.wav())}), 400)
        assert "found audio, but the model takes 'image' (image)" in error["message"]
    with serving.client(tiny_model({})) as client:
        error = error_of(client.post("/v1/answer", json={"segments": image(serving.png())}), 400)
        assert "the model takes text alone" in error["message"]


def test_a_fault_tells_nothing_and_the_next_request_is_answered(monkeypatch):
    model = tiny_model()
    with serving.client(model) as client:
        asked = {"segments": "x", "labels": ["a", "b"]}

        def fail(*given: Any) -> Any:
            raise RuntimeError("secret /path")

        with monkeypatch.context() as patch:
            patch.setattr(model, "classify", fail)
            response = client.post("/v1/answer", json=asked)
        assert error_of(response, 500)["code"] == "internal"
        assert "secret" not in response.text
        assert client.post("/v1/answer", json=asked).status_code == 200
        assert client.get("/health").json() == {"status": "ok"}


def test_no_memory_is_said(monkeypatch):
    model = tiny_model()
    with serving.client(model) as client:

        def fail(*given: Any, **arguments: Any) -> Any:
            raise MemoryError

        monkeypatch.setattr(model, "answer", fail)
        error = error_of(client.post("/v1/answer", json={"segments": "x"}), 503)
        assert error["code"] == "out_of_memory"


def test_the_time_limit():
    with serving.client(tiny_model(), max_request_seconds=0.05, max_new_tokens=10**6) as client:
        body = {"segments": "안녕", "max_new_tokens": 10**6, "stop_loops": False}
        response = client.post("/v1/answer", json=body)
        error = error_of(response, 408)
        assert "0.05 seconds" in error["message"]
        assert response.headers["x-should-retry"] == "false"
        with client.stream("POST", "/v1/answer", json=body | {"stream": True}) as streamed:
            text = streamed.read().decode()
        assert '"code": "timeout"' in text or '"code":"timeout"' in text
