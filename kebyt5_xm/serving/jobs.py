"""A request on its way through the worker: what it asks, and the events that come back."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from kebyt5_xm.data.inputs import Example
from kebyt5_xm.model.infilling import Gaps
from kebyt5_xm.model.transcription.transcript import TimedWord
from kebyt5_xm.model.transcription.windows import Window
from kebyt5_xm.serving.api_errors import ApiError, timeout_error
from kebyt5_xm.serving.attention import MediumSlots

CHOICES = ("chrf", "cer", "wer")
"""Names of the metrics by which one of several answers is chosen."""


@dataclass(frozen=True)
class Search:
    """Arguments of `CrossModalT5.answer` (or `classify`, with labels). Requests with equal ones share a batch."""

    max_new_tokens: int
    n: int = 1
    temperature: float | None = None
    num_beams: int | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    labels: tuple[str, ...] | None = None
    choose: str | None = None
    valid_utf8: bool = True
    stop_loops: bool = True

    @property
    def rows(self) -> int:
        """Decoder rows of one request."""
        return max(self.n, self.num_beams or 1)

    @property
    def is_streamed(self) -> bool:
        """Whether its answer can be read while it is written, and be ended alone."""
        return self.labels is None and self.rows == 1

    @property
    def may_run_beside(self) -> bool:
        """Whether it may begin while other batches run: it takes turns with them, or is quick."""
        return self.is_streamed or self.labels is not None

    def may_join(self, other: "Search") -> bool:
        """Return whether a batch of this search may hold `other`; seeded samples depend on no other request."""
        return self == other and self.seed is None

    def arguments(self) -> dict[str, Any]:
        """Return the arguments that were given, without seed, labels and choose."""
        names = (
            "max_new_tokens",
            "n",
            "temperature",
            "num_beams",
            "top_k",
            "top_p",
            "valid_utf8",
            "stop_loops",
        )
        return {name: value for name in names if (value := getattr(self, name)) is not None}


@dataclass(frozen=True)
class Result:
    """The end of a request: its answers, the best first, the probabilities of its labels, or its words with times."""

    answers: list[dict[str, Any]]
    probabilities: dict[str, float] | None = None
    words: list[TimedWord] = field(default_factory=list)

    @property
    def num_bytes(self) -> int:
        """Bytes of all answers; of a text with gaps those that were filled in."""
        return sum(
            len(part["text"].encode()) for answer in self.answers for part in answer.get("spans", [answer])
        )


Event = str | Result | ApiError
"""A piece of text, the end, or a failure (also an end)."""


@dataclass(eq=False)
class Job:
    """One request, made on the event loop and answered by the worker's thread.

    Args:
        example: the prepared input.
        search: how its answer is searched for.
        details: whether each answer comes with its probabilities.
        started: when the request came, of `time.monotonic`.
        max_seconds: it fails when it is not done so long after `started`.
        gaps: the text whose gaps the answer fills.
        media: those to which the attention of the answer is wanted; with `details` alone.
        window: the part of a recording in the example, if the times of words are wanted.
    """

    example: Example
    search: Search
    details: bool
    started: float
    max_seconds: float
    gaps: Gaps | None = None
    media: Sequence[MediumSlots] = ()
    window: Window | None = None
    queued: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self.has_begun = False
        self.is_done = False
        self._is_cancelled = False

    @property
    def num_input_ids(self) -> int:
        """Encoder positions of the input."""
        return len(self.example.input_ids)

    def cancel(self) -> None:
        """Tell the worker that nobody waits for the answer."""
        self._is_cancelled = True

    def is_wanted(self) -> bool:
        """Return whether the worker should go on; a job that is late fails here."""
        if not self.is_done and time.monotonic() - self.started > self.max_seconds:
            self.send(timeout_error(self.max_seconds))
        return not (self._is_cancelled or self.is_done)

    def send(self, event: Event) -> None:
        """Hand an event to the event loop, from the worker's thread; nothing follows an end."""
        if self.is_done:
            return
        self.has_begun = True
        self.is_done = not isinstance(event, str)
        if not self._is_cancelled:
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def events(self) -> AsyncIterator[str | Result]:
        """Yield the pieces and the result. Raises `ApiError` for a failure and at the time limit."""
        while True:
            left = self.max_seconds - (time.monotonic() - self.started)
            try:
                event = await asyncio.wait_for(self._events.get(), max(0.0, left))
            except TimeoutError:
                self.cancel()
                raise timeout_error(self.max_seconds) from None
            if isinstance(event, ApiError):
                raise event
            yield event
            if isinstance(event, Result):
                return


def padded_positions(jobs: Sequence[Job]) -> int:
    """Return the encoder positions of a batch's rows, padding included."""
    return len(jobs) * jobs[0].search.rows * max(job.num_input_ids for job in jobs)
