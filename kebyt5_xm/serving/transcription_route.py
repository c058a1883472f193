"""`POST /v1/audio/transcriptions`, in OpenAI's shape: a form with a recording."""

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.datastructures import FormData

from kebyt5_xm.model.transcription.cutting import AUDIO
from kebyt5_xm.model.transcription.transcript import TimedWord, Transcript
from kebyt5_xm.serving.api_errors import bad_request
from kebyt5_xm.serving.inputs import Content
from kebyt5_xm.serving.jobs import Job, Result, Search
from kebyt5_xm.serving.schemas import STREAMED, Text
from kebyt5_xm.serving.service import Service, finish, place_of, server_stream, stream_events
from kebyt5_xm.serving.transcription_schemas import Transcription, VerboseTranscription, verbose
from kebyt5_xm.serving.windowed import cut_recording, final_words, recording_seconds

LANGUAGE = "{language}"
"""The place of the language in a prompt."""
Format = Literal["json", "text", "srt", "verbose_json", "vtt"]
TIMED = ("srt", "verbose_json", "vtt")
"""Formats with times."""
BATCHES_AHEAD = 2
"""Batches of windows of one recording in the line: the second one is there when the first is done."""
GRANULARITIES = "timestamp_granularities[]"
FIELDS = (
    *("file", "model", "prompt", "language", "response_format", "temperature", "stream"),
    GRANULARITIES,
)

PLAIN = {"text/plain": {"schema": {"type": "string"}}}
RESPONSES = STREAMED | {200: {"content": STREAMED[200]["content"] | PLAIN}}


def transcription_router(service: Service) -> APIRouter:
    """Return the route."""
    router = APIRouter()

    @router.post(
        "/v1/audio/transcriptions",
        response_model=Transcription | VerboseTranscription,
        responses=RESPONSES,
    )
    async def transcribe(
        request: Request,
        file: Annotated[UploadFile, File(description="a recording; its content tells its format")],
        model: Annotated[Text, Form()],
        prompt: Annotated[
            Text | None, Form(description="stands after the recording, instead of the server's")
        ] = None,
        language: Annotated[Text | None, Form(description="for a prompt with a place for it")] = None,
        response_format: Annotated[Format, Form(description="the last three have times")] = "json",
        temperature: Annotated[float, Form(ge=0, le=1, allow_inf_nan=False)] = 0.0,
        stream: Annotated[bool, Form()] = False,
        granularities: Annotated[
            list[Literal["word", "segment"]] | None,
            Form(alias=GRANULARITIES, description="with verbose_json: what has times; segments by default"),
        ] = None,
    ) -> Response:
        """Write down a recording, window by window if it is long. Other fields of a form are refused."""
        service.check_model(model)
        _check_fields(await request.form())
        if stream and response_format != "json":
            raise bad_request(f"found stream with response_format {response_format}, expected json", "stream")
        if granularities and response_format != "verbose_json":
            raise bad_request(
                f"{GRANULARITIES}: found {response_format}, expected response_format verbose_json",
                GRANULARITIES,
            )
        raw = await file.read()
        template = service.transcription_prompt if prompt is None else AUDIO + prompt
        before, after = split_prompt(template, raw, language)
        search = Search(max_new_tokens=service.limits.max_new_tokens, temperature=temperature)
        seconds = await service.in_thread(
            lambda: recording_seconds(service.worker.processor, raw, service.limits)
        )
        if response_format not in TIMED and seconds <= service.cutting.window_seconds:
            contents: tuple[Content, ...] = (before, ("audio", None, raw), after)
            job = await service.submit(request, [c for c in contents if c], search, False, stream)
            if stream:
                return await stream_events(job, lambda event: _stream_data(job, event))
            result = await finish(job)
            return _response(response_format, result.answers[0]["text"], _usage([job], result.num_bytes))
        jobs, seconds = await _prepare_windows(service, request, before, raw, after, search)
        place, ahead = place_of(request), BATCHES_AHEAD * service.limits.max_batch_size
        found = final_words(jobs, lambda queued: service.queue(place, queued), ahead)
        if stream:
            return await server_stream(_stream_words(jobs, found))
        words = [word async for some in found for word in some]
        transcript = Transcript(tuple(words), seconds)
        if response_format in ("srt", "vtt"):
            return PlainTextResponse(transcript.format(response_format))
        usage = _usage(jobs, len(transcript.text.encode()))
        if response_format == "verbose_json":
            shown = granularities or ["segment"]
            return JSONResponse(verbose(transcript, language, temperature, shown) | {"usage": usage})
        return _response(response_format, transcript.text, usage)

    return router


def _check_fields(form: FormData) -> None:
    """Raise `ApiError` for an unknown field, and for one that is given twice."""
    if unknown := sorted(form.keys() - set(FIELDS)):
        raise bad_request(f"found the field '{unknown[0]}', expected {', '.join(sorted(FIELDS))}", unknown[0])
    for name in form:
        if name != GRANULARITIES and len(form.getlist(name)) > 1:
            raise bad_request(f"{name}: found it {len(form.getlist(name))} times, expected it once", name)


def split_prompt(template: str, raw: bytes, language: str | None) -> tuple[str, str]:
    """Return what stands before and after the recording. Raises `ApiError` for a language without a place."""
    if not raw:
        raise bad_request("file: found an empty file, expected a recording", "file")
    if (language is not None) != (LANGUAGE in template):
        found = "no language, expected one" if language is None else "a language, expected none"
        raise bad_request(f"language: found {found}: so is the prompt of this server", "language")
    before, _, after = template.replace(LANGUAGE, language or "").partition(AUDIO)
    return before, after


async def _prepare_windows(
    service: Service, request: Request, before: str, raw: bytes, after: str, search: Search
) -> tuple[list[Job], float]:
    """Return a job for each window of a recording, and its seconds."""
    service.check_search(search, stream=False)
    processor, limits = service.worker.processor, service.limits
    cut = await service.in_thread(
        lambda: cut_recording(processor, before, raw, after, limits, service.cutting)
    )
    place, most = place_of(request), limits.max_request_seconds
    jobs = [Job(example, search, True, place.started, most, window=window) for window, example in cut.windows]
    return jobs, cut.seconds


async def _stream_words(
    jobs: Sequence[Job], found: AsyncIterator[list[TimedWord]]
) -> AsyncIterator[dict[str, Any]]:
    text = ""
    async for words in found:
        if words:
            delta = (" " if text else "") + " ".join(word.text for word in words)
            text += delta
            yield {"type": "transcript.text.delta", "delta": delta}
    usage = _usage(jobs, len(text.encode()))
    yield {"type": "transcript.text.done", "text": text, "usage": usage}


def _response(format: str, text: str, usage: dict[str, Any]) -> Response:
    return PlainTextResponse(text) if format == "text" else JSONResponse({"text": text, "usage": usage})


def _stream_data(job: Job, event: str | Result) -> Iterator[dict[str, Any]]:
    if isinstance(event, str):
        yield {"type": "transcript.text.delta", "delta": event}
    else:
        text = event.answers[0]["text"]
        yield {"type": "transcript.text.done", "text": text, "usage": _usage([job], event.num_bytes)}


def _usage(jobs: Sequence[Job], num_bytes: int) -> dict[str, Any]:
    read = sum(job.num_input_ids for job in jobs)
    counts = {"input_tokens": read, "output_tokens": num_bytes, "total_tokens": read + num_bytes}
    return {"type": "tokens", **counts}
