"""Runs jobs in worker processes, with progress in bytes. Workers exit when their parent does."""

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from typing import Any, TypeVar

from kebyt5_xm.errors import UserError

Result = TypeVar("Result")
Progress = Callable[[int], object]
"""Called with the amount of work since the last call."""
SECONDS_BETWEEN_UPDATES = 0.2


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_jobs(
    jobs: Mapping[int, Callable[[Progress], Result]], workers: int, progress: Progress
) -> Iterator[tuple[int, Result]]:
    """Run every job and yield its number and result when it ends. One worker or one job starts no process.

    An exception in a job, or Ctrl-C, stops the other jobs at their next progress report.

    Raises:
        UserError: a worker was killed.
    """
    if workers == 1 or len(jobs) <= 1:
        for number, job in jobs.items():
            yield number, job(progress)
        return
    context = multiprocessing.get_context("spawn")  # threads of remote file systems do not survive a fork
    counter = context.Value("Q", 0)
    stop = context.Event()
    pool = ProcessPoolExecutor(min(workers, len(jobs)), context, _start_worker, (counter, stop))
    shown = 0
    try:
        pending = {pool.submit(_run_job, pickle.dumps(job)): number for number, job in jobs.items()}
        while pending:
            done, _ = wait(pending, timeout=SECONDS_BETWEEN_UPDATES, return_when=FIRST_COMPLETED)
            seen = counter.get_obj().value  # without the lock: a killed worker may hold it
            progress(seen - shown)
            shown = seen
            for future in done:
                yield pending.pop(future), future.result()
    except BrokenProcessPool as error:
        raise UserError(
            "a worker was killed (by the system, if memory ran out); finished work is kept: run the same "
            "command again with fewer --workers"
        ) from error
    except BaseException:
        stop.set()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


_counter: "Synchronized[int]"
_stop: Event


def _start_worker(counter: "Synchronized[int]", stop: Event) -> None:
    global _counter, _stop
    _counter, _stop = counter, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too and sets `stop`
    exit_with_parent()


def exit_with_parent() -> None:
    """End this process when its parent ends, even if the parent is killed.

    Otherwise a worker of a killed parent waits for work forever. PyTorch's data workers watch the process that forked
    them. Under `forkserver`, the default of Python 3.14, that is a server that in turn waits for them.
    """

    def watch() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def ignore_group_signals() -> None:
    """Ignore SIGINT, and SIGTERM unless the parent sends it.

    Terminals, torchrun and clusters signal the whole process group, but a run needs its workers to finish the step
    before it saves. Without `sigwaitinfo` (macOS) the sender is unknown, and SIGTERM ends the process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # also in threads started later

    def watch() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
            pass
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def _run_job(job: bytes) -> Any:
    # Unpickled here, so that a failure reaches the parent. A pool worker that fails to receive a job just exits.
    return pickle.loads(job)(_report_progress)


def _report_progress(size: int) -> None:
    if _stop.is_set():
        raise KeyboardInterrupt
    with _counter.get_lock():
        _counter.value += size
