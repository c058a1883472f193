"""The iterable of micro-batches that Lightning sees, made in this process or in data workers."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from kebyt5_xm.data.batch import Batch
from kebyt5_xm.data.pool import exit_with_parent, ignore_group_signals
from kebyt5_xm.errors import UserError

FETCH = 4
"""Micro-batches that a worker sends at a time: fewer, larger transfers between processes."""


@dataclass
class _ErrorsAsValues(Dataset):
    """Makes every item on one thread, and returns a `UserError` as a value.

    An error raised in a worker would arrive wrapped in the worker's traceback.
    """

    dataset: Dataset

    def __getitem__(self, order: Any) -> Any:
        # Kernels round differently on other numbers of threads, and a worker has one thread. Prepared media must not
        # depend on `num_workers`, so one thread prepares them without workers too.
        num_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return self.dataset[order]
        except UserError as error:
            return error
        finally:
            torch.set_num_threads(num_threads)


KILLED_WORKER = (
    "a data worker was killed (by the system, if memory ran out); continue with --ckpt_path last, with a smaller "
    "data.num_workers if it was memory"
)


RAISED_IN_WORKER = "in DataLoader worker process"
"""PyTorch adds this to the message of an exception that the dataset raised in a worker."""


def is_of_killed_worker(error: RuntimeError) -> bool:
    """Return True if PyTorch raised this error because a data worker died.

    It does so in a signal handler, so the error may come from any code of this process.
    """
    return "DataLoader worker" in str(error) and ("exited" in str(error) or "killed" in str(error))


def _start_worker(number: int) -> None:
    ignore_group_signals()
    exit_with_parent()


class Loader:
    """An iterable of micro-batches with a length.

    `length` is the length of the whole run, also if `orders` begins in the middle, because Lightning counts the
    finished micro-batches of a resumed run too. `timeout`: seconds that a worker may take for one fetch.
    `seconds_waited`: how long this process has waited for micro-batches, or made them, so far.
    Raises the data's own `UserError`, and one if a worker was killed or took too long.
    """

    def __init__(
        self,
        dataset: Dataset,
        orders: Iterable[Any],
        length: int,
        num_workers: int,
        pin_memory: bool,
        timeout: float = 0.0,
    ) -> None:
        self.dataset = dataset
        self.orders = orders
        self.length = length
        self.num_workers = num_workers
        self.pin_memory = pin_memory
        self.timeout = timeout
        self.seconds_waited = 0.0
        self._restarted = False

    def restart(self, orders: Iterable[Any]) -> None:
        """Continue with other orders after the last micro-batch given; prefetched ones are dropped."""
        self.orders = orders
        self._restarted = True

    def __len__(self) -> int:
        return self.length

    def state_dict(self) -> dict[str, Any]:
        """Return an empty state: the data module's state holds the position, and `orders` begins there.

        This method tells Lightning that a run may be continued in the middle of its one epoch.
        """
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do nothing: see `state_dict`."""

    def __iter__(self) -> Iterator[Batch]:
        self._restarted = True
        while self._restarted:
            self._restarted = False
            for batch in self._batches():
                yield batch
                if self._restarted:
                    break

    def _batches(self) -> Iterator[Batch]:
        fetches = DataLoader(
            _ErrorsAsValues(self.dataset),
            batch_size=FETCH if self.num_workers else 1,
            sampler=self.orders,
            collate_fn=list,
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            timeout=self.timeout if self.num_workers else 0.0,
            worker_init_fn=_start_worker,
        )
        iterator = iter(fetches)
        while True:
            asked = time.perf_counter()
            try:
                fetched = next(iterator, None)
            except RuntimeError as error:
                raise self._explain(error) from error
            except (OSError, EOFError) as error:
                if RAISED_IN_WORKER in str(error):
                    raise
                raise UserError(KILLED_WORKER) from error  # while it sent a batch
            self.seconds_waited += time.perf_counter() - asked
            if fetched is None:
                return
            for batch in fetched:
                if isinstance(batch, UserError):
                    raise batch
                yield batch

    def _explain(self, error: RuntimeError) -> Exception:
        """Return PyTorch's error about a dead or slow worker as a `UserError`; other errors unchanged."""
        if is_of_killed_worker(error):
            return UserError(KILLED_WORKER)
        if "timed out" in str(error):
            return UserError(
                f"a data worker gave nothing for {self.timeout:g} seconds: a file system or a URL that does not "
                "answer; continue with --ckpt_path last, with a larger data.timeout if it is only slow"
            )
        return error
