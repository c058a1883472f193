"""`POST /v1/answer`: what `model.answer` does, over HTTP."""

from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from kebyt5_xm.serving.jobs import Job, Result, Search
from kebyt5_xm.serving.schemas import STREAMED, AnswerRequest, AnswerResponse
from kebyt5_xm.serving.service import Service, finish, stream_events


def answer_router(service: Service) -> APIRouter:
    """Return the route."""
    router = APIRouter()

    @router.post("/v1/answer", response_model=AnswerResponse, responses=STREAMED)
    async def answer(asked: AnswerRequest, request: Request) -> Response:
        """Answer texts, images and recordings."""
        contents, has_gaps = asked.contents(), asked.has_gaps
        names = Search.__dataclass_fields__.keys() - {"labels", "max_new_tokens", "valid_utf8"}
        labels = None if asked.labels is None else tuple(asked.labels)
        search = Search(
            service.longest(asked.max_new_tokens),
            labels=labels,
            valid_utf8=asked.valid_utf8 and not has_gaps,
            **{name: getattr(asked, name) for name in names},
        )
        details = asked.details or asked.attention or has_gaps
        job = await service.submit(request, contents, search, details, asked.stream, asked.attention)
        if asked.stream:
            return await stream_events(job, lambda event: _stream_data(service, job, event))
        return JSONResponse(_response(service, job, await finish(job)))

    return router


def _stream_data(service: Service, job: Job, event: str | Result) -> Iterator[dict[str, Any]]:
    yield {"text": event} if isinstance(event, str) else _response(service, job, event)


def _response(service: Service, job: Job, result: Result) -> dict[str, Any]:
    response: dict[str, Any] = {"model": service.name, "answers": result.answers}
    if result.probabilities is not None:
        response["probabilities"] = result.probabilities
    return response | {"usage": {"input_ids": job.num_input_ids, "output_bytes": result.num_bytes}}
