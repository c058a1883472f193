"""The app: its routes, and what stands before them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Security
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPBearer

from kebyt5_xm.serving.admission import Admission, Place
from kebyt5_xm.serving.answer_route import answer_router
from kebyt5_xm.serving.api_errors import add_error_handlers
from kebyt5_xm.serving.chat_route import chat_router
from kebyt5_xm.serving.metrics import CONTENT_TYPE, Metrics
from kebyt5_xm.serving.page import mount_page, page_router
from kebyt5_xm.serving.page_content import PageContent
from kebyt5_xm.serving.schemas import ERRORS, Health
from kebyt5_xm.serving.service import Service
from kebyt5_xm.serving.transcription_route import transcription_router

METRICS_RESPONSES = ERRORS | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}


def make_app(
    service: Service, metrics: Metrics, token: str | None = None, content: PageContent | None = None
) -> FastAPI:
    """Return the app of a service; its worker starts and ends with the app.

    Args:
        service: the model.
        metrics: those of the service's worker.
        token: what clients must send; without one the app answers this machine alone.
        content: what the page shows of the model.
    """
    places: set[Place] = set()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.worker.start()
        yield
        service.worker.stop()

    app = FastAPI(
        title=f"kebyt5-xm serve: {service.name}",
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redirect_slashes=False,
        redoc_url=None,
    )
    add_error_handlers(app)
    routers = (
        answer_router(service),
        chat_router(service),
        transcription_router(service),
        page_router(service, content or PageContent()),
    )
    # The schema says that a token is needed; Admission checks it.
    needed = [] if token is None else [Security(HTTPBearer(auto_error=False))]
    for router in routers:
        app.include_router(router, dependencies=needed)

    @app.get("/health", response_model=Health, responses=ERRORS | {503: {"model": Health}})
    async def health() -> JSONResponse:
        """Tell whether requests are answered."""
        works = service.worker.is_alive
        return JSONResponse({"status": "ok" if works else "failed"}, 200 if works else 503)

    @app.get("/metrics", response_class=Response, responses=METRICS_RESPONSES, dependencies=needed)
    async def show_metrics() -> Response:
        """Tell counts and times, for Prometheus."""
        text = metrics.text(len(places), len(service.worker.waiting))
        return Response(text, media_type=CONTENT_TYPE)

    app.add_middleware(Admission, limits=service.limits, metrics=metrics, token=token, places=places)
    mount_page(app)
    return app
