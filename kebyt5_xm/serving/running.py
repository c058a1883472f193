"""A batch whose answers are sent while they are written; several of them take turns."""

import time
from collections.abc import Callable, Sequence

from kebyt5_xm.model.answer_stream import AnswerStream
from kebyt5_xm.model.hypothesis import Hypothesis
from kebyt5_xm.serving.jobs import Job, Result
from kebyt5_xm.serving.metrics import Metrics

TURN_SECONDS = 0.02
"""How long a batch writes before the next one does. Our own choice."""


class RunningBatch:
    """Jobs that are answered together, as a stream.

    Args:
        jobs: one for each row of the stream.
        stream: their answers.
        metrics: are told of every piece.
        describe: returns the end of a job.
    """

    def __init__(
        self,
        jobs: list[Job],
        stream: AnswerStream,
        metrics: Metrics,
        describe: Callable[[Job, Sequence[Hypothesis]], Result],
    ) -> None:
        self.jobs, self.begun = jobs, time.monotonic()
        self._stream, self._metrics, self._describe = stream, metrics, describe
        self._texts = [""] * len(jobs)

    def take_turn(self) -> bool:
        """Send the pieces of one turn, and each end when it is reached; return whether the batch goes on.

        Details come when all have ended. Answers that nobody waits for end at the next piece.
        """
        end = time.monotonic() + TURN_SECONDS
        while time.monotonic() < end:
            try:
                number, piece = next(self._stream)
            except StopIteration:
                self._finish()
                return False
            self._texts[number] += piece
            self._metrics.count_bytes(len(piece.encode()))
            self.jobs[number].send(piece)
            self._send_ends()
            for other, job in enumerate(self.jobs):
                if self._stream.finish_reason(other) is None and not job.is_wanted():
                    self._stream.cancel(other)
        return True

    def _finish(self) -> None:
        self._send_ends()
        if any(job.is_wanted() for job in self.jobs):
            for job, answer in zip(self.jobs, self._stream.result(), strict=True):
                if job.is_wanted():
                    job.send(self._describe(job, [answer]))

    def _send_ends(self) -> None:
        for number, job in enumerate(self.jobs):
            reason = self._stream.finish_reason(number)
            if reason is not None and not job.details and not job.is_done:
                job.send(Result([{"text": self._texts[number], "finish_reason": reason}]))
