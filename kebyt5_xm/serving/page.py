"""The page at `/`, its files below `/static/`, and what it asks the server about the model.

Nothing on the page comes from elsewhere: its policy lets it load its own files alone.
"""

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel
from starlette.types import Message, Receive, Scope, Send

from kebyt5_xm.encoder import Media
from kebyt5_xm.model.transcription.cutting import AUDIO
from kebyt5_xm.serving.api_errors import ApiError
from kebyt5_xm.serving.page_content import Example, GapExample, PageContent, Prompt
from kebyt5_xm.serving.schemas import ERRORS
from kebyt5_xm.serving.service import Service
from kebyt5_xm.vocabulary import MAX_SENTINELS

STATIC = Path(__file__).parent / "static"
POLICY = (
    "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; media-src blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Permissions-Policy": "camera=(self), microphone=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


class PageLimits(BaseModel):
    """Limits of a request, for a page that tells of them before it sends anything."""

    max_bytes: int
    max_pixels: int
    max_seconds: float
    max_new_tokens: int
    max_gaps: int


class PageDescription(BaseModel):
    """What the page shows of a model; `gaps` is null for a model that was not trained to fill gaps."""

    model: str
    modalities: dict[str, Media]
    prompts: list[Prompt]
    examples: list[Example]
    gaps: list[GapExample] | None
    limits: PageLimits


def page_router(service: Service, content: PageContent) -> APIRouter:
    """Return the routes with which the page learns of the model."""
    router = APIRouter()
    processor, limits = service.worker.processor, service.limits
    modalities: dict[str, Media] = {name: i.media for name, i in processor.interfaces.items()}
    fills = service.worker.is_denoiser
    content.complete(modalities, service.transcription_prompt.split(AUDIO), fills)
    description = PageDescription(
        model=service.name,
        modalities=modalities,
        prompts=content.prompts,
        examples=content.examples,
        gaps=content.gaps if fills else None,
        limits=PageLimits(
            **{name: getattr(limits, name) for name in PageLimits.model_fields if hasattr(limits, name)},
            max_gaps=MAX_SENTINELS[processor.sentinels],
        ),
    )

    @router.get("/v1/page", response_model=PageDescription, responses=ERRORS)
    async def describe() -> PageDescription:
        """Tell what the page shows: the model's prompts, and held-out examples."""
        return description

    kind: dict[int | str, dict[str, Any]] = {200: {"content": {"application/octet-stream": {}}}}

    @router.get("/v1/page/files/{number}", response_class=Response, responses=ERRORS | kind)
    async def show_file(number: Annotated[int, PathParameter(ge=0)]) -> Response:
        """Send the image or recording of an example."""
        if number >= len(content.files):
            raise ApiError(404, f"found file {number}, expected one of {len(content.files)}", "not_found")
        return Response(content.files[number], media_type="application/octet-stream", headers=HEADERS)

    return router


def mount_page(app: FastAPI) -> None:
    """Serve the page and its files."""

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers=HEADERS)

    app.mount("/static", _Static(directory=STATIC))


class _Static(StaticFiles):
    """Files with the page's headers."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *own]
            await send(message)

        await super().__call__(scope, receive, with_headers)
