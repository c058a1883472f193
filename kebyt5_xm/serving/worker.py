"""The thread that owns the model: it answers the waiting jobs in batches."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from kebyt5_xm.errors import UserError
from kebyt5_xm.metrics import CharacterErrorRate, ChrF, WordErrorRate
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.device import explain_out_of_memory
from kebyt5_xm.model.hypothesis import Hypothesis
from kebyt5_xm.model.infilling import Filled
from kebyt5_xm.model.processor import CrossModalProcessor
from kebyt5_xm.model.transcription.word_times import time_words
from kebyt5_xm.serving.api_errors import ApiError, bad_request, internal_error, log
from kebyt5_xm.serving.attention import slot_attention
from kebyt5_xm.serving.jobs import Job, Result, padded_positions
from kebyt5_xm.serving.limits import ServingLimits
from kebyt5_xm.serving.metrics import Metrics
from kebyt5_xm.serving.running import RunningBatch
from kebyt5_xm.serving.waiting import WaitingJobs

METRICS = {"chrf": ChrF, "cer": CharacterErrorRate, "wer": WordErrorRate}
ALONE_SECONDS = 1.0
"""How long a batch runs before another may begin beside it: by then others have gathered. Our own choice."""
MAX_RUNNING = 4
"""Batches that take turns. Each more makes the others slower. Our own choice."""
OUT_OF_MEMORY = "shorten the input or ask for fewer answers"
T = TypeVar("T")


class Worker:
    """Answers jobs with a model in a thread of its own.

    Args:
        model: in eval mode; nothing else may use it.
        limits: of a batch.
        metrics: are told of every batch.
    """

    def __init__(self, model: CrossModalT5, limits: ServingLimits, metrics: Metrics) -> None:
        self._model, self._metrics = model, metrics
        self.processor = CrossModalProcessor.of(model, limits.media)
        self.waiting = WaitingJobs(limits)
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)

    def start(self) -> None:
        """Write one byte, so that what is built at the first use is built, and start the thread."""
        self._model.answer(".", max_new_tokens=1)
        self._thread.start()

    def stop(self) -> None:
        """Wait until the thread has finished the waiting jobs; cancelled ones end at their next piece."""
        self.waiting.stop()
        self._thread.join()

    @property
    def is_denoiser(self) -> bool:
        """Whether the model is known to fill gaps."""
        return bool(self._model.config.denoising)

    @property
    def is_alive(self) -> bool:
        """Whether jobs are answered."""
        return self._thread.is_alive()

    def _work(self) -> None:
        """Answer the waiting jobs. Batches that take long let others begin beside them, and take turns."""
        running: list[RunningBatch] = []
        while True:
            batch: list[Job] | None = []
            if not running:
                batch = self.waiting.gather()
            elif len(running) < MAX_RUNNING and time.monotonic() - running[-1].begun > ALONE_SECONDS:
                batch = self.waiting.take_beside(sum(padded_positions(other.jobs) for other in running))
            if batch is None:
                return
            if batch and (begun := self._begin(batch)):
                running.append(begun)
            running = [other for other in running if self._take_turn(other)]

    def _begin(self, batch: list[Job]) -> RunningBatch | None:
        """Return a batch that writes its answers piece by piece; others are answered at once."""
        self._metrics.observe_batch(len(batch))
        return self._attempt(batch, lambda: self._search(batch))

    def _take_turn(self, running: RunningBatch) -> bool:
        return bool(self._attempt(running.jobs, running.take_turn))

    def _attempt(self, batch: list[Job], action: Callable[[], T]) -> T | None:
        """Return what an action returns, or None if it fails.

        Then each job is tried alone, unless it was alone or a piece of it is sent.
        """
        try:
            with explain_out_of_memory(self._model.device, OUT_OF_MEMORY):
                return action()
        except Exception as error:
            failure = _explain(error)
        # The exception is gone now, and with it the tensors of its frames.
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()
        for job in [job for job in batch if job.is_wanted()]:
            if len(batch) == 1 or job.has_begun:
                job.send(failure)
            elif alone := self._begin([job]):
                while self._take_turn(alone):
                    pass
        return None

    def _search(self, batch: list[Job]) -> RunningBatch | None:
        search = batch[0].search
        inputs = self.processor.collate([job.example for job in batch])
        if search.labels is not None:
            rows = self._model.classify(inputs, search.labels)
            assert isinstance(rows, list)
            for job, found in zip(batch, rows, strict=True):
                best = max(found, key=lambda label: found[label])
                job.send(Result([{"text": best, "finish_reason": "stop"}], found))
            return None
        arguments = search.arguments()
        if search.seed is not None:
            arguments["generator"] = torch.Generator(self._model.device).manual_seed(search.seed)
        if search.is_streamed:
            stream = self._model.answer(inputs, stream=True, **arguments)
            return RunningBatch(batch, stream, self._metrics, self._describe)
        choose = None if search.choose is None else METRICS[search.choose]()
        answers = self._model.answer(inputs, details=True, choose=choose, **arguments)
        for job, found in zip(batch, answers, strict=True):
            group = found if isinstance(found, list) else [found]
            self._metrics.count_bytes(sum(len(answer.raw) for answer in group))
            job.send(self._describe(job, group))
        return None

    def _describe(self, job: Job, answers: Sequence[Hypothesis]) -> Result:
        if job.window is None:
            return Result(self._as_dicts(job, answers))
        inputs = self.processor.collate([job.example]).to(self._model.device)
        words = time_words(self._model, self.processor, inputs, answers, [job.window])
        return Result([answer.as_dict() for answer in answers], words=words[0])

    def _as_dicts(self, job: Job, answers: Sequence[Hypothesis]) -> list[dict[str, Any]]:
        if job.gaps is not None:
            return [Filled.of(job.gaps, answer, self.processor.sentinels).as_dict() for answer in answers]
        fields = [answer.as_dict() for answer in answers]
        if not job.details:
            return [{name: each[name] for name in ("text", "finish_reason")} for each in fields]
        if job.media:
            looked = slot_attention(self._model, job.example, job.media, answers)
            fields = [each | {"attention": maps} for each, maps in zip(fields, looked, strict=True)]
        return fields


def _explain(error: Exception) -> ApiError:
    if isinstance(error, UserError):
        if OUT_OF_MEMORY in str(error):
            return ApiError(503, f"found no memory for this request; {OUT_OF_MEMORY}", "out_of_memory")
        return bad_request(str(error))
    log.error("an answer failed", exc_info=error)
    return internal_error()
