"""The app: its routes, and what stands before them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles

from kebyt5_xm.serving.admission import Admission, Place
from kebyt5_xm.serving.answer_route import answer_router
from kebyt5_xm.serving.api_errors import add_error_handlers
from kebyt5_xm.serving.chat_route import chat_router
from kebyt5_xm.serving.metrics import CONTENT_TYPE, Metrics
from kebyt5_xm.serving.service import Service
from kebyt5_xm.serving.transcription_route import transcription_router

STATIC = Path(__file__).parent / "static"
"""The page at `/` is index.html; its files are at `/static/`."""


def make_app(service: Service, metrics: Metrics, token: str | None = None) -> FastAPI:
    """Return the app of a service; its worker starts and ends with the app.

    Args:
        service: the model.
        metrics: those of the service's worker.
        token: what clients must send; without one the app answers this machine alone.
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
        redoc_url=None,
    )
    add_error_handlers(app)
    for router in (answer_router(service), chat_router(service), transcription_router(service)):
        app.include_router(router)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        """Return the page; its own files are below /static."""
        return FileResponse(STATIC / "index.html")

    @app.get("/health")
    async def health() -> JSONResponse:
        """Tell whether requests are answered."""
        works = service.worker.is_alive
        return JSONResponse({"status": "ok" if works else "failed"}, 200 if works else 503)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def show_metrics() -> PlainTextResponse:
        """Tell counts and times, for Prometheus."""
        text = metrics.text(len(places), len(service.worker.waiting))
        return PlainTextResponse(text, media_type=CONTENT_TYPE)

    app.add_middleware(Admission, limits=service.limits, metrics=metrics, token=token, places=places)
    app.mount("/static", StaticFiles(directory=STATIC))
    return app
