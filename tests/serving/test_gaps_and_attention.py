"""`/v1/answer`: texts with gaps, and where answers looked."""

import json
from typing import Any

import numpy as np
import pytest
import serving
import torch
from tiny_model import IMAGE_SLOTS, picture, recording, tiny_model

from kebyt5_xm.model.cross_attention import cross_attention
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.decoding.int8 import quantize_decoder
from kebyt5_xm.model.infilling import Gaps
from kebyt5_xm.serving import attention

pytest.importorskip("fastapi")

IMAGE, AUDIO, TEXT = serving.IMAGE, serving.AUDIO, serving.TEXT
PIECES = ["서울은 ", "이고, ", "."]
GAPS = {"type": "gaps", "pieces": PIECES}


@pytest.fixture(scope="module")
def model() -> CrossModalT5:
    return tiny_model()


@pytest.fixture(scope="module")
def client(model):
    with serving.client(model) as opened:
        yield opened


def post(client: Any, segments: Any, **arguments: Any) -> Any:
    body = json.dumps({"segments": segments, "max_new_tokens": 30, **arguments})
    return client.post("/v1/answer", content=body, headers={"Content-Type": "application/json"})


def answers(client: Any, segments: Any, **arguments: Any) -> list[dict[str, Any]]:
    response = post(client, segments, **arguments)
    assert response.status_code == 200, response.text
    return response.json()["answers"]


@pytest.mark.parametrize("n", [1, 3])
def test_gaps_are_filled_as_in_python(client, model, n):
    found = answers(client, [GAPS], n=n)
    expected = model.fill(Gaps(PIECES), n=n, max_new_tokens=30)
    expected = expected if n > 1 else [expected]
    assert [answer["text"] for answer in found] == [filled.text for filled in expected]
    for answer, filled in zip(found, expected, strict=True):
        assert [span["text"] for span in answer["spans"]] == [span.text for span in filled.spans]
        assert answer["confidence"] == pytest.approx(filled.confidence, rel=1e-4)
    assert answers(client, [IMAGE, GAPS])[0]["text"].startswith(PIECES[0])


def test_what_does_not_fill_gaps_is_refused(client):
    for arguments in (
        {"stream": True},
        {"labels": ["a", "b"]},
        {"choose": "chrf", "n": 2},
        {"attention": True},
    ):
        response = post(client, [GAPS], **arguments)
        assert response.status_code == 400
        assert f"found {next(iter(arguments))} with gaps" in response.json()["error"]["message"]
    for segments, message in (
        ([GAPS, GAPS], "found 2 of type gaps"),
        ([{"type": "gaps", "pieces": ["a"] * 13}], "found 12 gaps, expected at most 11"),
        ([{"type": "gaps", "pieces": ["a"]}], "at least 2"),
        ([{"type": "gaps", "pieces": ["a", 3]}], "string"),
        ([{"type": "gaps", "pieces": ["a", "\ud800"]}], "half a character"),
    ):
        response = post(client, segments)
        assert response.status_code == 400
        assert message in response.json()["error"]["message"]
    long = [{"type": "gaps", "pieces": ["a" * 4000, "b" * 4000]}]
    assert post(client, long).status_code == 413


@pytest.mark.parametrize("stream", [False, True])
def test_attention_is_the_mean_over_layers_heads_and_bytes(client, model, stream):
    if stream:
        lines = post(client, [IMAGE, TEXT, AUDIO], attention=True, stream=True).text.splitlines()
        (answer,) = json.loads([line for line in lines if line][-2].removeprefix("data: "))["answers"]
    else:
        (answer,) = answers(client, [IMAGE, TEXT, AUDIO], attention=True)
    samples, rate = recording(7)
    inputs = model.processor([picture(1), " ko:", (samples, rate)])
    ids = torch.tensor([[*(byte + 3 for byte in answer["text"].encode())]])
    with torch.no_grad():
        states = model.encode(**inputs).last_hidden_state
    weights = cross_attention(model, states, None, ids).mean((0, 1, 2))  # [T, S]
    image, audio = answer["attention"]
    assert (image["segment"], image["modality"], image["shape"]) == (0, "image", [2, 3])
    assert (audio["segment"], audio["modality"], len(audio["shape"])) == (2, "speech", 1)
    start = IMAGE_SLOTS + len(" ko:") + 1  # the begin vector stands for no part of the recording
    expected = weights[:, start : start + audio["shape"][0]]
    np.testing.assert_allclose(audio["answer"], expected.mean(0), atol=2e-4)
    np.testing.assert_allclose(image["answer"], weights[:, :IMAGE_SLOTS].mean(0), atol=2e-4)
    assert image["share"] == pytest.approx(sum(image["answer"]), abs=1e-3)
    raw, at = answer["text"].encode(), 0
    for word, found in zip(answer["words"], audio["words"], strict=True):
        at = raw.index(word["text"].encode(), at)
        of_word = expected[at : at + len(word["text"].encode())].mean(0)
        np.testing.assert_allclose(found, of_word, atol=2e-4)


def test_attention_that_is_not_known_is_left_out(client, model, monkeypatch):
    assert "attention" not in answers(client, "안녕", attention=True)[0]
    assert "attention" not in answers(client, [IMAGE], details=True)[0]
    assert post(client, [IMAGE], attention=True, labels=["a", "b"]).status_code == 400
    monkeypatch.setattr(attention, "MAX_VALUES", 1)
    (found,) = answers(client, [IMAGE], attention=True)[0]["attention"]
    assert (found["words"], len(found["answer"])) == ([], IMAGE_SLOTS)
    quantized = tiny_model()
    quantize_decoder(quantized)
    with serving.client(quantized) as compiled:
        assert answers(compiled, [IMAGE], attention=True)[0]["attention"] == []
