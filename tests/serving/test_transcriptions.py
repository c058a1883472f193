"""Transcriptions with times, and of recordings longer than a window."""

import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import serving
import soundfile
from tiny_model import SAMPLE_RATE, recording, tiny_model

from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.transcription.transcript import Transcript
from kebyt5_xm.serving.jobs import Job
from kebyt5_xm.serving.waiting import WaitingJobs

WINDOW = 1.0
PROMPT = "{audio} ko: "
MAX_NEW_TOKENS = 13


def long_recording() -> bytes:
    """Return three seconds with pauses, so that windows have nothing in common."""
    samples, rate = recording(11, 3 * SAMPLE_RATE)
    steps = np.arange(len(samples)) // (rate // 5)
    file = io.BytesIO()
    soundfile.write(file, np.where(steps % 3 == 2, 0, samples), rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


LONG = long_recording()


@pytest.fixture(scope="module")
def model() -> CrossModalT5:
    return tiny_model()


@pytest.fixture(scope="module")
def expected(model: CrossModalT5) -> Transcript:
    return model.transcribe(LONG, PROMPT, window_seconds=WINDOW, max_new_tokens=MAX_NEW_TOKENS)


@pytest.fixture(scope="module")
def client(model: CrossModalT5) -> Iterator[Any]:
    with serving.client(model, prompt=PROMPT, window_seconds=WINDOW, max_new_tokens=MAX_NEW_TOKENS) as opened:
        yield opened


def transcribe(client: Any, raw: bytes = LONG, **fields: Any) -> Any:
    return client.post("/v1/audio/transcriptions", files={"file": raw}, data={"model": "tiny", **fields})


def test_a_long_recording_is_transcribed_in_windows(client: Any, expected: Transcript) -> None:
    found = transcribe(client).json()
    assert found["text"] == expected.text
    assert len(expected.words) > 2
    assert found["usage"]["output_tokens"] == len(expected.text.encode())
    assert transcribe(client, response_format="text").text == expected.text


def test_subtitles(client: Any, expected: Transcript) -> None:
    for name in ("srt", "vtt"):
        response = transcribe(client, response_format=name)
        assert response.text == expected.format(name)
        assert response.headers["content-type"].startswith("text/plain")


def test_verbose_json(client: Any, expected: Transcript) -> None:
    found = transcribe(
        client, response_format="verbose_json", **{"timestamp_granularities[]": ["word", "segment"]}
    )
    found = found.json()
    assert found["duration"] == 3.0
    assert found["text"] == expected.text
    assert [(word["word"], word["start"], word["end"]) for word in found["words"]] == [
        (word.text, round(word.start, 3), round(word.stop, 3)) for word in expected.words
    ]
    assert [segment["text"] for segment in found["segments"]] == [cue.text for cue in expected.cues()]
    assert "words" not in transcribe(client, response_format="verbose_json").json()


def test_short_recordings_have_times_too(client: Any, model: CrossModalT5) -> None:
    raw = serving.wav()
    found = transcribe(client, raw, response_format="srt").text
    assert found == model.transcribe(raw, PROMPT, window_seconds=WINDOW, max_new_tokens=MAX_NEW_TOKENS).srt()


def test_words_are_streamed_window_by_window(client: Any, expected: Transcript) -> None:
    with client.stream(
        "POST",
        "/v1/audio/transcriptions",
        files={"file": LONG},
        data={"model": "tiny", "stream": "true"},
    ) as response:
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    *pieces, done = [json.loads(line) for line in lines[:-1]]
    assert lines[-1] == "[DONE]"
    assert len(pieces) > 1
    assert "".join(piece["delta"] for piece in pieces) == done["text"] == expected.text
    assert done["type"] == "transcript.text.done"


@pytest.mark.parametrize("stream", ["false", "true"])
def test_a_long_recording_leaves_the_line_to_others(
    model: CrossModalT5, expected: Transcript, monkeypatch: pytest.MonkeyPatch, stream: str
) -> None:
    """Two batches of its windows wait, not all."""
    lengths, put = [], WaitingJobs.put

    def watched(waiting: WaitingJobs, job: Job) -> None:
        put(waiting, job)
        lengths.append(len(waiting))

    monkeypatch.setattr(WaitingJobs, "put", watched)
    with serving.client(
        model, prompt=PROMPT, window_seconds=WINDOW, max_new_tokens=MAX_NEW_TOKENS, max_batch_size=1
    ) as client:
        response = transcribe(client, stream=stream)
    assert response.status_code == 200
    if stream == "false":
        assert response.json()["text"] == expected.text
    assert len(lengths) > 4
    assert max(lengths) <= 2


def test_silence(client: Any) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(2 * SAMPLE_RATE), SAMPLE_RATE, format="WAV")
    found = transcribe(client, file.getvalue(), response_format="verbose_json")
    assert found.status_code == 200
    assert found.json()["text"] == ""
    assert transcribe(client, file.getvalue(), response_format="vtt").text == "WEBVTT\n"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"response_format": "srt", "stream": "true"},
            "found stream with response_format srt, expected json",
        ),
        ({"timestamp_granularities[]": "word"}, "expected response_format verbose_json"),
        (
            {"timestamp_granularities[]": "syllable", "response_format": "verbose_json"},
            "timestamp_granularities",
        ),
        ({"response_format": "ass"}, "response_format"),
        ({"language": "ko"}, "found a language, expected none"),
    ],
)
def test_refusals(client: Any, fields: dict[str, str], message: str) -> None:
    response = transcribe(client, **fields)
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]


def test_a_field_that_is_given_twice(client: Any) -> None:
    files = [("file", LONG), ("file", serving.wav())]
    response = client.post("/v1/audio/transcriptions", files=files, data={"model": "tiny"})
    assert response.status_code == 400
    assert "file: found it 2 times, expected it once" in response.json()["error"]["message"]


def test_limits(model: CrossModalT5) -> None:
    with serving.client(model, window_seconds=WINDOW, max_seconds=2.5) as client:
        response = transcribe(client, response_format="srt")
        assert response.status_code == 413
        assert "found 3.0 seconds, expected at most 2.5" in response.json()["error"]["message"]
    with serving.client(model, window_seconds=WINDOW, max_input_ids=9) as client:
        response = transcribe(client, response_format="srt")
        assert response.status_code == 413
        assert "--window-seconds" in response.json()["error"]["message"]


def test_damage_behind_the_header(client: Any) -> None:
    file = io.BytesIO()
    soundfile.write(file, recording(3, 3 * SAMPLE_RATE)[0], SAMPLE_RATE, format="FLAC")
    response = transcribe(client, file.getvalue()[:-5000], response_format="srt")
    assert response.status_code == 400
    assert "cannot" in response.json()["error"]["message"]
