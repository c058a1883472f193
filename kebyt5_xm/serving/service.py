"""What the routes share: the model's name, the limits, and the way of a request through the worker."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse

from kebyt5_xm.data.inputs import Example
from kebyt5_xm.model.answer_arguments import MAX_NEW_TOKENS
from kebyt5_xm.model.infilling import Gaps
from kebyt5_xm.model.transcription.cutting import AUDIO, Cutting
from kebyt5_xm.serving.admission import Place
from kebyt5_xm.serving.api_errors import ApiError, bad_request, internal_error, log
from kebyt5_xm.serving.attention import MediumSlots
from kebyt5_xm.serving.inputs import Content, find_slots, make_example
from kebyt5_xm.serving.jobs import Job, Result, Search
from kebyt5_xm.serving.limits import ServingLimits
from kebyt5_xm.serving.worker import Worker

T = TypeVar("T")
Data = dict[str, Any]
"""An object that is sent."""
PREPARING_THREADS = 2
"""Threads that decode media: one decodes while another waits for a file. Our own choice."""


@dataclass
class Service:
    """A model that answers requests.

    Args:
        name: of the model, for clients.
        worker: owns the model.
        limits: of requests.
        transcription_prompt: what stands around a recording in /v1/audio/transcriptions, with one `{audio}`.
        cutting: how recordings are cut that are longer than a window.
    """

    name: str
    worker: Worker
    limits: ServingLimits
    transcription_prompt: str = AUDIO
    cutting: Cutting = field(default_factory=Cutting)
    _threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(PREPARING_THREADS, "prepare"), repr=False
    )
    _idle_threads: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(PREPARING_THREADS), repr=False
    )

    def check_model(self, name: str | None) -> None:
        """Raise `ApiError` for another model than this one."""
        if name is not None and name != self.name:
            raise ApiError(
                404,
                f"found the model '{name}', expected '{self.name}', the only one here",
                "model_not_found",
                "model",
            )

    def longest(self, max_new_tokens: int | None) -> int:
        """Return how many bytes an answer may have; a default if the request does not say it."""
        return min(MAX_NEW_TOKENS, self.limits.max_new_tokens) if max_new_tokens is None else max_new_tokens

    def check_search(self, search: Search, stream: bool) -> None:
        """Raise `ApiError` for arguments above the limits or that exclude each other."""
        limits = self.limits
        for name, value, most in (
            ("max_new_tokens", search.max_new_tokens, limits.max_new_tokens),
            ("n", search.n, limits.max_answers),
            ("num_beams", search.num_beams or 1, limits.max_answers),
            ("labels", len(search.labels or ()), limits.max_labels),
        ):
            if value > most:
                raise bad_request(
                    f"{name}: found {value}, expected at most {most}; ask for fewer", name, "limit"
                )
        size = sum(len(label.encode()) + 1 for label in search.labels or ())
        if size > limits.max_input_ids:
            raise bad_request(
                f"labels: found {size} bytes, expected at most {limits.max_input_ids}; give fewer or shorter ones",
                "labels",
                "limit",
            )
        samples, beams = bool(search.temperature), (search.num_beams or 1) > 1
        draws = search.top_k is not None or search.top_p is not None
        for one, other, found in (
            (
                search.labels is not None,
                samples or beams or search.n > 1,
                "labels with n, temperature or num_beams",
            ),
            (samples, beams, "temperature with num_beams"),
            (stream, not search.is_streamed, "stream with n, num_beams or labels"),
        ):
            if one and other:
                raise bad_request(f"found {found}, expected one of them; leave the other out")
        for one, missing, found in (
            (search.choose is not None, search.n < 2, "choose without n=2 or more"),
            (search.seed is not None, not samples, "seed without a temperature above 0"),
            (draws, not samples, "top_k or top_p without a temperature above 0"),
        ):
            if one and missing:
                raise bad_request(f"found {found}, expected both; nothing is chosen or drawn otherwise")

    async def submit(
        self,
        request: Request,
        contents: Sequence[Content],
        search: Search,
        details: bool,
        stream: bool,
        attention: bool = False,
    ) -> Job:
        """Prepare a request and hand it to the worker; attention needs details. Raises `ApiError`."""
        self.check_search(search, stream)
        example, media = await self.in_thread(lambda: self._prepare(contents, attention))
        gaps = next((content for content in contents if isinstance(content, Gaps)), None)
        place = place_of(request)
        job = Job(
            example, search, details, place.started, self.limits.max_request_seconds, gaps=gaps, media=media
        )
        self.queue(place, [job])
        return job

    def queue(self, place: Place, jobs: Sequence[Job]) -> None:
        """Hand jobs of a request to the worker."""
        place.jobs.extend(jobs)
        for job in jobs:
            self.worker.waiting.put(job)

    async def in_thread(self, prepare: Callable[[], T]) -> T:
        """Call a function in a thread. Raises `ApiError`.

        A request waits here, not in the line of the threads: there the media of clients that have left would stay.
        """
        await self._idle_threads.acquire()
        prepared = asyncio.get_running_loop().run_in_executor(self._threads, prepare)
        prepared.add_done_callback(lambda _: self._idle_threads.release())
        try:
            return await asyncio.shield(prepared)
        except MemoryError:
            raise ApiError(
                503, "found no memory for this request; send smaller media", "out_of_memory"
            ) from None

    def _prepare(self, contents: Sequence[Content], attention: bool) -> tuple[Example, list[MediumSlots]]:
        processor = self.worker.processor
        example = make_example(processor, contents, self.limits)
        return example, find_slots(processor, contents, example, self.limits) if attention else []


def place_of(request: Request) -> Place:
    """Return the place of a request in the server."""
    place = request.state.place
    assert isinstance(place, Place)
    return place


async def finish(job: Job) -> Result:
    """Return the end of a job. Raises `ApiError`."""
    async for event in job.events():
        if isinstance(event, Result):
            return event
    raise internal_error()


async def stream_events(job: Job, to_data: Callable[[str | Result], Iterable[Data]]) -> StreamingResponse:
    """Return a response of server-sent events, once the first event of a job is there.

    `to_data` takes an event (a piece or the `Result`) and returns the objects to send for it. Raises as
    `server_stream` does.
    """

    async def objects() -> AsyncIterator[Data]:
        async for event in job.events():
            for data in to_data(event):
                yield data

    return await server_stream(objects())


async def server_stream(objects: AsyncIterator[Data]) -> StreamingResponse:
    """Return a response of server-sent events, once the first object is there.

    Raises `ApiError` for a failure before the first object; a later one is sent as an event of its own.
    """
    first = await anext(objects)

    async def body() -> AsyncIterator[bytes]:
        try:
            yield server_sent(first)
            async for data in objects:
                yield server_sent(data)
        except ApiError as error:
            yield server_sent(error.content())
        except Exception as error:
            log.error("a stream failed", exc_info=error)
            yield server_sent(internal_error().content())
        yield b"data: [DONE]\n\n"

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(body(), media_type="text/event-stream", headers=headers)


def server_sent(data: Data) -> bytes:
    """Return an object as one server-sent event (html.spec.whatwg.org, "Server-sent events")."""
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()
