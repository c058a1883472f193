"""Jobs in processes, with progress in bytes, that end when their parent does."""

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
"""Called with what was done since the last call."""
SECONDS_BETWEEN_UPDATES = 0.2


def num_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_jobs(
    jobs: Mapping[int, Callable[[Progress], Result]], workers: int, progress: Progress
) -> Iterator[tuple[int, Result]]:
    """Run every job, yielding its number and result as it ends; one worker or one job starts no process.

    An exception of a job, and an interruption from the keyboard, stop the others at their next progress.

    Raises:
        UserError: a worker was killed.
    """
    if workers == 1 or len(jobs) <= 1:
        for number, job in jobs.items():
            yield number, job(progress)
        return
    context = multiprocessing.get_context("spawn")  # threads of a library behind a URL do not survive a fork
    counter = context.Value("Q", 0)
    stop = context.Event()
    pool = ProcessPoolExecutor(min(workers, len(jobs)), context, _start_worker, (counter, stop))
    shown = 0
    try:
        pending = {pool.submit(_run_job, pickle.dumps(job)): number for number, job in jobs.items()}
        while pending:
            done, _ = wait(pending, timeout=SECONDS_BETWEEN_UPDATES, return_when=FIRST_COMPLETED)
            seen = counter.get_obj().value  # without the lock: a worker that was killed may hold it
            progress(seen - shown)
            shown = seen
            for future in done:
                yield pending.pop(future), future.result()
    except BrokenProcessPool as error:
        raise UserError(
            "a worker was killed (by the system, if memory ran out); what is finished is kept: run the same "
            "command again, with fewer --workers"
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and sets `stop`
    exit_with_parent()


def exit_with_parent() -> None:
    """Let this process end once the one that asked for it is gone, however it went.

    Without this a worker whose parent was killed waits for work for ever. (PyTorch's data workers watch the process
    that forked them, which under `forkserver`, Python 3.14's default, is a server that waits for them in turn.)
    """

    def watch() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def ignore_group_signals() -> None:
    """Let SIGINT and SIGTERM end this process only where they come from the one that it works for.

    Terminals, torchrun and clusters send them to a whole group of processes, and a run needs its workers to finish
    the step that it then saves. Where a sender cannot be told (no `sigwaitinfo`: macOS), SIGTERM ends it as ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # of threads that are begun from here on, too

    def watch() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
            pass
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def _run_job(job: bytes) -> Any:
    # Unpickled here: what fails in it reaches the parent, where a worker that cannot even take its job just ends.
    return pickle.loads(job)(_report_progress)


def _report_progress(size: int) -> None:
    if _stop.is_set():
        raise KeyboardInterrupt
    with _counter.get_lock():
        _counter.value += size
