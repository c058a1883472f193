"""A run's folder with held-out rows for the page, and a server with a page in a thread of this process."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
import yaml
from tiny_media import image_overlay, speech_overlay, write_media
from tiny_run import recipe, write_stores

from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.runs.run import Run
from kebyt5_xm.serving.app import make_app
from kebyt5_xm.serving.limits import ServingLimits
from kebyt5_xm.serving.metrics import Metrics
from kebyt5_xm.serving.page_content import PageContent
from kebyt5_xm.serving.run_examples import collect_content
from kebyt5_xm.serving.server import open_socket
from kebyt5_xm.serving.service import Service
from kebyt5_xm.serving.worker import Worker


def write_run(folder: Path) -> Run:
    """Write stores, images, recordings and a recipe of all of them; nothing is trained."""
    write_stores(folder)
    write_media(folder)
    contents = recipe(folder, "run")
    speech = speech_overlay(folder)
    speech["data"]["sources"]["speech"]["init_args"]["validation"] = str(folder / "speech.jsonl")
    for overlay in (image_overlay(folder), speech):
        contents["data"]["sources"] |= overlay["data"]["sources"]
    (folder / "run").mkdir()
    (folder / "run" / "config.yaml").write_text(yaml.safe_dump(contents, allow_unicode=True))
    return Run(folder / "run")


@contextmanager
def served(
    model: CrossModalT5, run: Run | None = None, token: str | None = None, **limits: Any
) -> Iterator[str]:
    """Yield the address of a server."""
    metrics, allowed = Metrics(), ServingLimits(**limits)
    worker = Worker(model, allowed, metrics)
    content = PageContent() if run is None else collect_content(run, worker.processor.interfaces)
    app = make_app(Service("tiny", worker, allowed), metrics, token, content)
    with open_socket("127.0.0.1", 0) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, ws="none"))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()
