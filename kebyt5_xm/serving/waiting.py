"""The jobs that wait for the worker, and how a batch of them is gathered."""

import threading
import time
from collections import deque

from kebyt5_xm.serving.jobs import Job, padded_positions
from kebyt5_xm.serving.limits import ServingLimits


class WaitingJobs:
    """Jobs in the order of arrival. `put` and `stop` are called by any thread, `gather` by the worker's alone."""

    def __init__(self, limits: ServingLimits) -> None:
        self._limits = limits
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._is_stopped = False

    def __len__(self) -> int:
        return len(self._jobs)

    def put(self, job: Job) -> None:
        """Append a job; those that nobody waits for any more leave the line."""
        job.queued = time.monotonic()
        with self._changed:
            self._jobs = deque(waiting for waiting in self._jobs if waiting.is_wanted())
            self._jobs.append(job)
            self._changed.notify()

    def stop(self) -> None:
        """Let `gather` return None once no job is left."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify()

    def gather(self) -> list[Job] | None:
        """Wait for a job; return it with others that may join it, or None when stopped.

        The oldest job waits for others until `gather_seconds` after it was put, so a job that stood in line waits
        no more.
        """
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._jobs or self._is_stopped)
                if not self._jobs:
                    return None
                closes = self._jobs[0].queued + self._limits.gather_seconds
                while not self._is_full(self._fitting(0)) and (left := closes - time.monotonic()) > 0:
                    self._changed.wait(left)
                if wanted := self._take(0):
                    return wanted

    def take_beside(self, positions: int) -> list[Job]:
        """Return waiting jobs that may begin beside batches of so many `padded_positions`, or none.

        All together stay within the positions of a batch.
        """
        with self._changed:
            return self._take(positions)

    def _take(self, taken: int) -> list[Job]:
        batch = self._fitting(taken)
        self._jobs = deque(job for job in self._jobs if job not in batch)
        return [job for job in batch if job.is_wanted()]

    def _fitting(self, taken: int) -> list[Job]:
        """Return the first job that fits beside `taken` positions and the next ones that may join it.

        With nothing taken, the first one always fits.
        """
        batch: list[Job] = []
        for job in self._jobs:
            if len(batch) == self._limits.max_batch_size:
                break
            fits = taken + padded_positions([*batch, job]) <= self._limits.max_batch_ids
            if batch:
                fits = fits and batch[0].search.may_join(job.search)
            elif taken:
                fits = fits and job.search.may_run_beside
            else:
                fits = True
            if fits:
                batch.append(job)
        return batch

    def _is_full(self, batch: list[Job]) -> bool:
        return len(batch) == self._limits.max_batch_size or batch[0].search.seed is not None
