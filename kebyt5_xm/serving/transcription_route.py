"""`POST /v1/audio/transcriptions`, in OpenAI's shape: a form with a recording."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic import BaseModel

from kebyt5_xm.serving.api_errors import bad_request
from kebyt5_xm.serving.inputs import Content
from kebyt5_xm.serving.jobs import Job, Result, Search
from kebyt5_xm.serving.limits import AUDIO
from kebyt5_xm.serving.schemas import STREAMED, Text
from kebyt5_xm.serving.service import Service, finish, stream_events

LANGUAGE = "{language}"
"""The place of the language in a prompt."""

PLAIN = {"text/plain": {"schema": {"type": "string"}}}
RESPONSES = STREAMED | {200: {"content": STREAMED[200]["content"] | PLAIN}}


class Tokens(BaseModel):
    """Positions of the input and bytes of the answer."""

    type: Literal["tokens"]
    input_tokens: int
    output_tokens: int
    total_tokens: int


class Transcription(BaseModel):
    """OpenAI's transcription."""

    text: str
    usage: Tokens


def transcription_router(service: Service) -> APIRouter:
    """Return the route."""
    router = APIRouter()

    @router.post("/v1/audio/transcriptions", response_model=Transcription, responses=RESPONSES)
    async def transcribe(
        request: Request,
        file: Annotated[UploadFile, File(description="a recording; its content tells its format")],
        model: Annotated[Text, Form()],
        prompt: Annotated[
            Text | None, Form(description="stands after the recording, instead of the server's")
        ] = None,
        language: Annotated[Text | None, Form(description="for a prompt with a place for it")] = None,
        response_format: Annotated[Literal["json", "text"], Form()] = "json",
        temperature: Annotated[float, Form(ge=0, le=1, allow_inf_nan=False)] = 0.0,
        stream: Annotated[bool, Form()] = False,
    ) -> Response:
        """Write down a recording. Other fields of a form are refused."""
        service.check_model(model)
        known = {"file", "model", "prompt", "language", "response_format", "temperature", "stream"}
        if unknown := sorted((await request.form()).keys() - known):
            raise bad_request(
                f"found the field '{unknown[0]}', expected {', '.join(sorted(known))}", unknown[0]
            )
        template = service.transcription_prompt if prompt is None else AUDIO + prompt
        contents = fill(template, await file.read(), language)
        search = Search(max_new_tokens=service.limits.max_new_tokens, temperature=temperature)
        job = await service.submit(request, contents, search, False, stream)
        if stream:
            return await stream_events(job, lambda event: _stream_data(job, event))
        result = await finish(job)
        text = result.answers[0]["text"]
        if response_format == "text":
            return PlainTextResponse(text)
        return JSONResponse({"text": text, "usage": _usage(job, result)})

    return router


def fill(template: str, raw: bytes, language: str | None) -> list[Content]:
    """Return a prompt with the recording and the language in their places. Raises `ApiError` without a place."""
    if not raw:
        raise bad_request("file: found an empty file, expected a recording", "file")
    if (language is not None) != (LANGUAGE in template):
        found = "no language, expected one" if language is None else "a language, expected none"
        raise bad_request(f"language: found {found}: so is the prompt of this server", "language")
    before, _, after = template.replace(LANGUAGE, language or "").partition(AUDIO)
    contents: list[Content] = [before, ("audio", None, raw), after]
    return [content for content in contents if content]


def _stream_data(job: Job, event: str | Result) -> Iterator[dict[str, Any]]:
    if isinstance(event, str):
        yield {"type": "transcript.text.delta", "delta": event}
    else:
        text = event.answers[0]["text"]
        yield {"type": "transcript.text.done", "text": text, "usage": _usage(job, event)}


def _usage(job: Job, result: Result) -> dict[str, Any]:
    counts = {"input_tokens": job.num_input_ids, "output_tokens": result.num_bytes}
    return {"type": "tokens", **counts, "total_tokens": sum(counts.values())}
