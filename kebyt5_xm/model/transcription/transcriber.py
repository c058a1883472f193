"""Transcribes recordings of any length: window by window, several at a time, with the times of words."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from kebyt5_xm.data.sources.template import Template
from kebyt5_xm.errors import UserError, did_you_mean
from kebyt5_xm.model.transcription.cutting import AUDIO, Cutting
from kebyt5_xm.model.transcription.joining import join_words
from kebyt5_xm.model.transcription.recording import open_recording
from kebyt5_xm.model.transcription.transcript import TimedWord, Transcript
from kebyt5_xm.model.transcription.windows import Window, cut_windows
from kebyt5_xm.model.transcription.word_times import time_words

if TYPE_CHECKING:
    from kebyt5_xm.model.cross_modal import CrossModalT5

REFUSED = {"labels", "stream", "details", "valid_utf8"}
"""Arguments of `model.answer` that make no sense for windows."""


@dataclass
class Transcriber:
    """Transcribes recordings with one model and one prompt.

    Args:
        model: the model.
        prompt: as in training, with one place for the recording: `{audio}`, a modality's name, or a recipe's
            `{column:modality}`. `{{` is a brace.
        cutting: how recordings are cut.
        batch_size: windows that are answered together.
        search: arguments of `model.answer`.
    """

    model: "CrossModalT5"
    prompt: str = AUDIO
    cutting: Cutting = field(default_factory=Cutting)
    batch_size: int = 8
    search: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        pieces = Template(self.prompt).pieces()
        places = [piece for piece in pieces if not isinstance(piece, str)]
        if len(places) != 1:
            raise UserError(
                f"found the prompt '{self.prompt}', expected one place for the recording, such as '{AUDIO} ko:'"
            )
        if not isinstance(self.batch_size, int) or self.batch_size < 1:
            raise UserError(
                f"found batch_size {self.batch_size!r}, expected 1 or more windows, a whole number"
            )
        if refused := sorted(REFUSED & self.search.keys()):
            raise UserError(f"found {refused[0]}, expected a search for one text: leave it out")
        if self.search.get("n", 1) != 1 and self.search.get("choose") is None:
            raise UserError("found n without choose, expected both: one of n answers to a window is taken")
        self._modality = self._find_modality(*places[0])
        self._pieces = [piece if isinstance(piece, str) else None for piece in pieces]

    def _find_modality(self, column: str, modality: str | None) -> str:
        processor, name = self.model.processor, modality or column
        if name not in processor.interfaces:
            if name != "audio":
                raise UserError(
                    f"no modality '{name}'{did_you_mean(name, processor.interfaces)}; the model has "
                    f"{processor.describe_modalities()}"
                )
            return processor.modality_of("audio")
        if processor.interfaces[name].media != "audio":
            raise UserError(
                f"found the modality '{name}', which takes {processor.interfaces[name].media}, expected one of audio"
            )
        return name

    def __call__(self, recording: Any, progress: Callable[[float], object] | None = None) -> Transcript:
        """Return what is said in a recording: a path, a file's bytes, or (waveform, sample rate).

        `progress` is told after each batch how many seconds are done. Raises `UserError`, and `MediaError` for a
        recording that cannot be read.
        """
        words: list[TimedWord] = []
        end = 0.0
        opened = open_recording(recording)
        windows = cut_windows(
            opened.blocks, opened.sample_rate, self.cutting.window_seconds, self.cutting.overlap
        )
        while batch := list(islice(windows, self.batch_size)):
            for window, found in zip(batch, self.transcribe(batch), strict=True):
                words = join_words(words, found, window.start_seconds, end)
                end = window.stop_seconds
            if progress is not None:
                progress(end)
        return Transcript(tuple(words), opened.seconds)

    def transcribe(self, windows: Sequence[Window]) -> list[list[TimedWord]]:
        """Return the words of each window, with times in the whole recording."""
        rows = [self.segments(window) for window in windows]
        inputs = self.model.processor(rows).to(self.model.device)
        arguments = {"max_new_tokens": self.cutting.max_new_tokens, **self.search}
        answers = self.model.answer(inputs, details=True, **arguments)
        return time_words(self.model, self.model.processor, inputs, answers, windows)

    def segments(self, window: Window) -> list[Any]:
        """Return the prompt with a window in its place."""
        recording = (self._modality, (window.samples, window.sample_rate))
        return [recording if piece is None else piece for piece in self._pieces]
