"""The thread that owns the model: it answers the waiting jobs, batch after batch."""

import threading
from collections.abc import Sequence
from typing import Any

import torch

from kebyt5_xm.errors import UserError
from kebyt5_xm.metrics import CharacterErrorRate, ChrF, WordErrorRate
from kebyt5_xm.model.answer_stream import AnswerStream
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.device import explain_out_of_memory
from kebyt5_xm.model.hypothesis import Hypothesis
from kebyt5_xm.model.infilling import Filled
from kebyt5_xm.model.processor import CrossModalProcessor
from kebyt5_xm.serving.api_errors import ApiError, bad_request, internal_error, log
from kebyt5_xm.serving.attention import slot_attention
from kebyt5_xm.serving.jobs import Job, Result
from kebyt5_xm.serving.limits import ServingLimits
from kebyt5_xm.serving.metrics import Metrics
from kebyt5_xm.serving.waiting import WaitingJobs

METRICS = {"chrf": ChrF, "cer": CharacterErrorRate, "wer": WordErrorRate}
OUT_OF_MEMORY = "shorten the input or ask for fewer answers"


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
        while (batch := self.waiting.gather()) is not None:
            self._answer(batch)

    def _answer(self, batch: list[Job]) -> None:
        """Answer the jobs; those of a batch that fails are tried alone, unless a piece of theirs is sent."""
        self._metrics.observe_batch(len(batch))
        try:
            with explain_out_of_memory(self._model.device, OUT_OF_MEMORY):
                self._search(batch)
            return
        except Exception as error:
<<<<<<< HEAD
            if self._model.device.type == "cuda":
                torch.cuda.empty_cache()
            left = [job for job in batch if job.is_wanted()]
            for job in left:
                if len(batch) == 1 or job.has_begun:
                    job.send(_explain(error))
                else:
                    self._answer([job])
=======
            failure = _describe(error)
        # The exception is gone now, and with it the tensors of its frames.
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()
        for job in [job for job in batch if job.is_wanted()]:
            if len(batch) == 1 or job.has_begun:
                job.send(failure)
            else:
                self._answer([job])
>>>>>>> cdd007c (Connections that stall end in time, every POST has a place and a limit, HEAD is answered, nothing of clients that left stays)

    def _search(self, batch: list[Job]) -> None:
        search = batch[0].search
        inputs = self.processor.collate([job.example for job in batch])
        if search.labels is not None:
            rows = self._model.classify(inputs, search.labels)
            assert isinstance(rows, list)
            for job, found in zip(batch, rows, strict=True):
                best = max(found, key=lambda label: found[label])
                job.send(Result([{"text": best, "finish_reason": "stop"}], found))
            return
        arguments = search.arguments()
        if search.seed is not None:
            arguments["generator"] = torch.Generator(self._model.device).manual_seed(search.seed)
        if search.is_streamed:
            self._stream(batch, self._model.answer(inputs, stream=True, **arguments))
            return
        choose = None if search.choose is None else METRICS[search.choose]()
        answers = self._model.answer(inputs, details=True, choose=choose, **arguments)
        for job, found in zip(batch, answers, strict=True):
            group = found if isinstance(found, list) else [found]
            self._metrics.count_bytes(sum(len(answer.raw) for answer in group))
            job.send(Result(self._describe(job, group)))

    def _stream(self, batch: list[Job], stream: AnswerStream) -> None:
        """Send the pieces, and each end when it is reached; details come when all have ended."""
        texts = [""] * len(batch)
        for number, piece in stream:
            texts[number] += piece
            self._metrics.count_bytes(len(piece.encode()))
            batch[number].send(piece)
            self._send_ends(batch, stream, texts)
            for other, job in enumerate(batch):
                if stream.finish_reason(other) is None and not job.is_wanted():
                    stream.cancel(other)
        self._send_ends(batch, stream, texts)
        if any(job.is_wanted() for job in batch):
            for job, answer in zip(batch, stream.result(), strict=True):
                if job.is_wanted():
                    job.send(Result(self._describe(job, [answer])))

    def _send_ends(self, batch: list[Job], stream: AnswerStream, texts: list[str]) -> None:
        for number, job in enumerate(batch):
            reason = stream.finish_reason(number)
            if reason is not None and not job.details and not job.is_done:
                job.send(Result([{"text": texts[number], "finish_reason": reason}]))

    def _describe(self, job: Job, answers: Sequence[Hypothesis]) -> list[dict[str, Any]]:
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
