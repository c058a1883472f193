"""The iterable of micro-batches that Lightning sees, whoever makes them: this process or its data workers."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from kebyt5_xm.data.batch import Batch
from kebyt5_xm.data.pool import exit_with_parent, ignore_group_signals
from kebyt5_xm.errors import UserError

FETCH = 4
"""Micro-batches a worker hands over at a time: fewer, larger transfers between processes."""


@dataclass
class _Told(Dataset):
    """Makes every item on one thread, and hands over a `UserError` as a value.

    Raised in a worker, it would arrive wrapped in that worker's traceback.
    """

    dataset: Dataset

    def __getitem__(self, order: Any) -> Any:
        # Kernels round differently on other numbers of threads, and a worker has one. What is prepared must not
        # depend on `num_workers`, so it is prepared on one thread without workers too.
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
"""What PyTorch adds to the message of an exception that the dataset raised in a worker."""


def is_of_killed_worker(error: RuntimeError) -> bool:
    """Say whether PyTorch raised this because a data worker is gone.

    It does so in a signal handler, so the error may come out of whatever the process is doing at that moment.
    """
    return "DataLoader worker" in str(error) and ("exited" in str(error) or "killed" in str(error))


def _start_worker(number: int) -> None:
    ignore_group_signals()
    exit_with_parent()


class Loader:
    """An iterable of micro-batches with a length.

    `length` is that of the whole run, also when `orders` begins in the middle: Lightning counts the micro-batches
    that a resumed run has behind it against it. `timeout` in seconds is how long a worker may take for one fetch.
    Raises the data's own `UserError`, and one where a worker was killed or took too long.
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
        self._anew = False

    def begin_anew(self, orders: Iterable[Any]) -> None:
        """Go on with other orders behind the micro-batch that was given last; what is prepared already is dropped."""
        self.orders = orders
        self._anew = True

    def __len__(self) -> int:
        return self.length

    def state_dict(self) -> dict[str, Any]:
        """Nothing: a run's place in its data is in the data module's state, and `orders` begins there.

        It tells Lightning that a run may be continued in the middle of its one epoch.
        """
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing, as above."""

    def __iter__(self) -> Iterator[Batch]:
        self._anew = True
        while self._anew:
            self._anew = False
            for batch in self._batches():
                yield batch
                if self._anew:
                    break

    def _batches(self) -> Iterator[Batch]:
        fetches = DataLoader(
            _Told(self.dataset),
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
            try:
                fetched = next(iterator, None)
            except RuntimeError as error:
                raise self._explained(error) from error
            except (OSError, EOFError) as error:
                if RAISED_IN_WORKER in str(error):
                    raise
                raise UserError(KILLED_WORKER) from error  # while it handed over a batch
            if fetched is None:
                return
            for batch in fetched:
                if isinstance(batch, UserError):
                    raise batch
                yield batch

    def _explained(self, error: RuntimeError) -> Exception:
        """Return what PyTorch says of a dead or slow worker as an error for people; anything else as it is."""
        if is_of_killed_worker(error):
            return UserError(KILLED_WORKER)
        if "timed out" in str(error):
            return UserError(
                f"a data worker gave nothing for {self.timeout:g} seconds: a file system or a URL that does not "
                "answer; continue with --ckpt_path last, with a larger data.timeout if it is only slow"
            )
        return error
