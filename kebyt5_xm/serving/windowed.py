"""Recordings that are transcribed window by window: a job for each window, and their words joined."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from kebyt5_xm.data.inputs import Example
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.processor import CrossModalProcessor
from kebyt5_xm.model.transcription.cutting import Cutting
from kebyt5_xm.model.transcription.joining import join_words
from kebyt5_xm.model.transcription.recording import open_recording
from kebyt5_xm.model.transcription.transcript import TimedWord
from kebyt5_xm.model.transcription.windows import Window, cut_windows
from kebyt5_xm.serving.api_errors import ApiError, bad_request
from kebyt5_xm.serving.inputs import count_slots, find_modality
from kebyt5_xm.serving.jobs import Job
from kebyt5_xm.serving.limits import ServingLimits
from kebyt5_xm.serving.service import finish


@dataclass(frozen=True)
class CutRecording:
    """A recording of so many seconds as its windows, each with its prepared input."""

    seconds: float
    windows: list[tuple[Window, Example]]


def recording_seconds(processor: CrossModalProcessor, raw: bytes, limits: ServingLimits) -> float:
    """Return the length of a recording, from its header. Raises `ApiError`."""
    count_slots(processor, find_modality(processor, "audio", None), raw, limits, 1)
    return open_recording(raw).seconds


def cut_recording(
    processor: CrossModalProcessor,
    before: str,
    raw: bytes,
    after: str,
    limits: ServingLimits,
    cutting: Cutting,
) -> CutRecording:
    """Decode and cut a recording within the limits (`recording_seconds`), with the prompt around each window.

    Raises `ApiError`.
    """
    name = find_modality(processor, "audio", None)
    windows = []
    try:
        opened = open_recording(raw)
        for window in cut_windows(opened.blocks, opened.sample_rate, cutting.window_seconds, cutting.overlap):
            medium = (name, (window.samples, window.sample_rate))
            segments = [segment for segment in (before, medium, after) if segment]
            windows.append((window, processor.example(segments, refuse_file_names=False)))
    except UserError as error:
        raise bad_request(str(error), code="invalid_media") from error
    longest = max((len(example.input_ids) for _, example in windows), default=0)
    if longest > limits.max_input_ids:
        raise ApiError(
            413,
            f"found a window of {longest} positions, expected at most {limits.max_input_ids}; start the server with "
            "a smaller --window-seconds",
            "input_too_long",
        )
    return CutRecording(opened.seconds, windows)


async def final_words(
    jobs: Sequence[Job], queue: Callable[[Sequence[Job]], object], ahead: int
) -> AsyncIterator[list[TimedWord]]:
    """Yield the words of jobs with windows, in order, each as soon as no later window can change it.

    At most `ahead` jobs are handed to `queue` before the first of them has ended: other requests come between, and
    need not wait for a whole recording. Raises `ApiError`.
    """
    words: list[TimedWord] = []
    sent, end = 0, 0.0
    queue(jobs[:ahead])
    for number, (job, after) in enumerate(zip_longest(jobs, jobs[1:])):
        assert job.window is not None
        result = await finish(job)
        queue(jobs[number + ahead : number + ahead + 1])
        words = join_words(words, result.words, job.window.start_seconds, end)
        end = job.window.stop_seconds
        start = float("inf") if after is None or after.window is None else after.window.start_seconds
        first = sent
        while sent < len(words) and words[sent].stop <= start:
            sent += 1
        yield words[first:sent]
