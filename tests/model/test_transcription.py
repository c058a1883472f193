"""`model.transcribe` on a tiny model, and transcripts as text, JSON and subtitles."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from test_decoding_int8 import int8
from tiny_model import SAMPLE_RATE, SPECS, recording, tiny_model

from kebyt5_xm.errors import UserError
from kebyt5_xm.metrics import ChrF
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.transcription.cutting import Cutting
from kebyt5_xm.model.transcription.transcriber import Transcriber
from kebyt5_xm.model.transcription.transcript import TimedWord, Transcript
from kebyt5_xm.model.transcription.windows import Window


def long_recording(seconds: float = 9.0) -> tuple[np.ndarray, int]:
    """Return bursts of half a second with pauses of a quarter."""
    samples, rate = recording(11, int(seconds * SAMPLE_RATE))
    steps = np.arange(len(samples)) // (rate // 4)
    return np.where(steps % 3 == 2, 0, samples).astype(np.float32), rate


@pytest.fixture(scope="module")
def model() -> CrossModalT5:
    return tiny_model()


def test_each_window_is_answered_as_by_itself(model: CrossModalT5) -> None:
    """The words are those of `answer` to each window, with times inside it."""
    transcriber = Transcriber(model, "{audio} ko:", Cutting(2.0), batch_size=3, search={"max_new_tokens": 11})
    seen: list[Window] = []
    answers: list[str] = []
    inner = transcriber.transcribe

    def watched(windows: Any) -> Any:
        seen.extend(windows)
        found = inner(windows)
        rows = [[(window.samples, window.sample_rate), " ko:"] for window in windows]
        texts = model.answer(rows, max_new_tokens=11)
        for window, words, text in zip(windows, found, texts, strict=True):
            assert [word.text for word in words] == text.split()
            for word in words:
                assert window.start_seconds <= word.start < word.stop <= window.stop_seconds
        answers.extend(texts)
        return found

    transcriber.transcribe = watched  # type: ignore[method-assign]
    done: list[float] = []
    found = transcriber(long_recording(), done.append)
    assert len(seen) > 3
    assert len(done) == -(-len(seen) // 3)
    assert done[-1] == pytest.approx(9.0, abs=0.3)
    assert found.seconds == 9.0
    assert found.text.split() == " ".join(answers).split()
    assert all(0 <= word.confidence <= 1 for word in found.words)


@pytest.mark.parametrize("kind", ["path", "text path", "bytes", "flac"])
def test_files_are_as_waveforms(model: CrossModalT5, tmp_path: Path, kind: str) -> None:
    samples, rate = long_recording(3.0)
    samples = (samples * 32768).round().astype(np.int16)
    path = tmp_path / ("a.flac" if kind == "flac" else "a.wav")
    soundfile.write(path, samples, rate)
    item = {"path": path, "flac": path, "text path": str(path), "bytes": path.read_bytes()}[kind]
    expected = model.transcribe(
        (samples.astype(np.float32) / 32768, rate), window_seconds=1, max_new_tokens=7
    )
    assert model.transcribe(item, window_seconds=1, max_new_tokens=7) == expected
    assert expected.words


def test_a_damaged_file_is_refused_where_it_ends(model: CrossModalT5) -> None:
    file = io.BytesIO()
    soundfile.write(file, long_recording(3.0)[0], SAMPLE_RATE, format="FLAC")
    with pytest.raises(UserError, match="cannot use"):
        model.transcribe(file.getvalue()[:-4000], window_seconds=1)


def test_without_places_in_time_the_sound_decides(model: CrossModalT5) -> None:
    """In int8 the model does not tell where it looks."""
    found = int8(model).transcribe(long_recording(3.0), window_seconds=1, max_new_tokens=7)
    assert found.words
    assert [word.start for word in found.words] == sorted(word.start for word in found.words)


def test_slots_of_a_resampler(model: CrossModalT5) -> None:
    adapter = {
        "class_path": "kebyt5_xm.adapters.PerceiverResampler",
        "init_args": {"queries": 5, "width": 16},
    }
    resampling = tiny_model({"speech": SPECS["speech"] | {"adapter": adapter}})
    assert resampling.transcribe(long_recording(3.0), window_seconds=1, max_new_tokens=7).words


def test_beams_and_the_least_risk(model: CrossModalT5) -> None:
    found = model.transcribe(
        long_recording(2.0), window_seconds=1, n=3, num_beams=3, choose=ChrF(), max_new_tokens=7
    )
    assert found.words


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, r: m.transcribe(r, "ko:"), "found the prompt 'ko:', expected one place for the recording"),
        (lambda m, r: m.transcribe(r, "{audio}{audio}"), "expected one place"),
        (lambda m, r: m.transcribe(r, "{image}"), "'image', which takes image, expected one of audio"),
        (lambda m, r: m.transcribe(r, "{spech}"), "no modality 'spech'; did you mean 'speech'"),
        (lambda m, r: m.transcribe(r, window_seconds=0.1), "found window_seconds 0.1, expected 0.5 or more"),
        (lambda m, r: m.transcribe(r, window_seconds=float("nan")), "found window_seconds nan"),
        (lambda m, r: m.transcribe(r, overlap_seconds=20), "found overlap_seconds 20 for windows of 30"),
        (lambda m, r: m.transcribe(r, overlap_seconds=1e-5), "found overlap_seconds 1e-05 for windows of 30"),
        (lambda m, r: m.transcribe(r, window_seconds="3"), "found window_seconds '3', expected a number"),
        (lambda m, r: m.transcribe(r, window_seconds=None), "found window_seconds None, expected"),
        (
            lambda m, r: m.transcribe(r, overlap_seconds=[1]),
            r"found overlap_seconds \[1\], expected a number",
        ),
        (lambda m, r: m.transcribe(r, batch_size=2.5), "found batch_size 2.5, expected 1 or more windows"),
        (lambda m, r: m.transcribe(r, batch_size=0), "found batch_size 0, expected 1 or more"),
        (lambda m, r: m.transcribe(r, stream=True), "found stream, expected a search for one text"),
        (lambda m, r: m.transcribe(r, n=2), "found n without choose, expected both"),
        (lambda m, r: m.transcribe(r, windowseconds=3), "found the argument windowseconds"),
        (lambda m, r: m.transcribe(3), "found a int, expected a recording"),
        (lambda m, r: m.transcribe("gone.wav"), "cannot use gone.wav: there is no such file"),
        (lambda m, r: m.transcribe((r[0], 3)), "sample rate of 3 Hz"),
    ],
)
def test_refusals(model: CrossModalT5, call: Callable[..., Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        call(model, long_recording(1.0))


def test_a_model_of_images_is_refused() -> None:
    with pytest.raises(UserError, match="found audio, and the model has 'image'"):
        tiny_model({"image": SPECS["image"]}).transcribe(long_recording(1.0))


@pytest.mark.parametrize("num_samples", [40, 400, 3 * SAMPLE_RATE + 7])
def test_no_word_ends_after_the_recording(model: CrossModalT5, num_samples: int) -> None:
    samples, rate = recording(5, num_samples)
    found = model.transcribe((samples, rate), window_seconds=4, max_new_tokens=5)
    assert found.words
    assert found.words[-1].stop == found.seconds
    assert all(one.stop <= other.start for one, other in zip(found.words, found.words[1:], strict=False))


@pytest.mark.parametrize(("window", "overlap"), [(30.0, 6.0), (3.0, 1.0), (1.5, 0.75), (0.5, 0.25)])
def test_windows_have_a_second_in_common_if_they_are_long_enough(window: float, overlap: float) -> None:
    assert Cutting(window).overlap == overlap


def test_silence_has_no_words(model: CrossModalT5) -> None:
    found = model.transcribe((np.zeros(SAMPLE_RATE, dtype=np.float32), SAMPLE_RATE))
    assert found == Transcript((), 1.0)
    assert [found.format(name) for name in ("text", "srt", "vtt")] == ["\n", "", "WEBVTT\n"]


WORDS = (
    TimedWord("안녕하세요", 0.0, 0.9996, 0.91234),
    TimedWord("<b>&", 1.2, 1.5, 0.5),
    TimedWord("-->", 1.5, 1.75, 0.5),
    TimedWord("later", 3661.25, 3661.5, 1.0),
)


def test_srt() -> None:
    assert Transcript(WORDS, 3700).srt() == (
        "1\n00:00:00,000 --> 00:00:01,750\n안녕하세요 <b>& →\n\n2\n01:01:01,250 --> 01:01:01,500\nlater\n"
    )


def test_vtt() -> None:
    assert Transcript(WORDS, 3700).vtt() == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.750\n안녕하세요 &lt;b&gt;&amp; →\n\n"
        "01:01:01.250 --> 01:01:01.500\nlater\n"
    )


def test_json_and_text() -> None:
    found = json.loads(Transcript(WORDS, 3700).format("json"))
    assert found["words"][0] == {"text": "안녕하세요", "start": 0.0, "end": 1.0, "confidence": 0.9123}
    assert found["seconds"] == 3700
    assert Transcript(WORDS, 3700).format("text") == "안녕하세요 <b>& --> later\n" == found["text"] + "\n"


def test_subtitles_are_short_enough_to_read() -> None:
    numbers = np.random.default_rng(3)
    words, at = [], 0.0
    for number in range(300):
        length = numbers.uniform(0.1, 0.9)
        words.append(
            TimedWord("가나다라"[: 1 + number % 4] * int(numbers.integers(1, 4)), at, at + length, 1.0)
        )
        at += length + numbers.choice([0.0, 0.1, 1.0])
    cues = Transcript(tuple(words), at).cues()
    assert [word for cue in cues for word in cue.words] == words
    for cue, after in zip(cues, [*cues[1:], None], strict=True):
        lines = cue.lines()
        assert len(lines) <= 2
        assert all(sum(2 if c != " " else 1 for c in line) <= 42 for line in lines)
        assert cue.stop - cue.start <= 7
        assert after is None or after.start >= cue.stop


def test_the_state_of_random_numbers_is_kept(model: CrossModalT5) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    model.transcribe(long_recording(1.0), max_new_tokens=3)
    assert before.equal(torch.get_rng_state())
