"""`POST /v1/chat/completions` and `GET /v1/models`, in OpenAI's shapes."""

import time
import uuid
from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from kebyt5_xm.serving.chat_schemas import ChatRequest, ChatResponse
from kebyt5_xm.serving.jobs import Job, Result
from kebyt5_xm.serving.schemas import ERRORS, STREAMED
from kebyt5_xm.serving.service import Service, finish, stream_events


def chat_router(service: Service) -> APIRouter:
    """Return the routes."""
    router = APIRouter()
    model = {"id": service.name, "object": "model", "created": int(time.time()), "owned_by": "kebyt5-xm"}
    model["modalities"] = {name: i.media for name, i in service.worker.processor.interfaces.items()}

    @router.get("/v1/models", responses=ERRORS)
    async def list_models() -> dict[str, Any]:
        """List the only model."""
        return {"object": "list", "data": [model]}

    @router.get("/v1/models/{name:path}", responses=ERRORS)
    async def show_model(name: str) -> dict[str, Any]:
        """Describe the model."""
        service.check_model(name)
        return model

    @router.post("/v1/chat/completions", response_model=ChatResponse, responses=STREAMED)
    async def chat(asked: ChatRequest, request: Request) -> Response:
        """Answer a conversation with texts, images (data: URLs) and recordings."""
        service.check_model(asked.model)
        search = asked.search(service.longest(asked.max_completion_tokens or asked.max_tokens))
        job = await service.submit(request, asked.contents(), search, False, bool(asked.stream))
        head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": service.name}
        if asked.stream:
            with_usage = asked.stream_options is not None and asked.stream_options.include_usage
            chunks = _Chunks(head | {"object": "chat.completion.chunk"}, job, with_usage)
            return await stream_events(job, chunks)
        result = await finish(job)
        choices = [
            {
                "index": number,
                "message": {"role": "assistant", "content": answer["text"], "refusal": None},
                "finish_reason": _reason(answer),
                "logprobs": None,
            }
            for number, answer in enumerate(result.answers)
        ]
        head |= {"object": "chat.completion", "choices": choices, "usage": _usage(job, result)}
        return JSONResponse(head)

    return router


class _Chunks:
    """The chunks of a stream for each event of a job; the first one has the role."""

    def __init__(self, head: dict[str, Any], job: Job, with_usage: bool) -> None:
        self._head, self._job, self._with_usage = head, job, with_usage
        self._has_begun = False

    def __call__(self, event: str | Result) -> Iterator[dict[str, Any]]:
        if not self._has_begun:
            self._has_begun = True
            yield self._chunk({"role": "assistant", "content": ""})
        if isinstance(event, str):
            yield self._chunk({"content": event})
            return
        yield self._chunk({}, _reason(event.answers[0]))
        if self._with_usage:
            yield self._head | {"choices": [], "usage": _usage(self._job, event)}

    def _chunk(self, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        return self._head | {"choices": [choice]}


def _reason(answer: dict[str, Any]) -> str:
    """Return OpenAI's word: an answer that was ended because it repeats itself was cut, as by length."""
    return "stop" if answer["finish_reason"] == "stop" else "length"


def _usage(job: Job, result: Result) -> dict[str, int]:
    written = result.num_bytes
    return {
        "prompt_tokens": job.num_input_ids,
        "completion_tokens": written,
        "total_tokens": job.num_input_ids + written,
    }
