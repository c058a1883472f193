"""A bound on what a stranger's config.json may allocate, before the memory of the machine ends."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from kebyt5_xm.errors import UserError

SMALLEST_BOUND = 1 << 28
"""Values that a tensor may have whatever the file holds: 1 GiB in fp32. An encoder may build more than it keeps."""

_BY_SIZE = (torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full, torch.randint)
_BY_COUNT = (torch.arange, torch.linspace, torch.eye)


class _Bound(TorchFunctionMode):
    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _BY_SIZE or func in _BY_COUNT:
            size = [*args, *kwargs.values()]
            nested = next((s for s in size if isinstance(s, tuple | list)), None)
            numbers = [n for n in (size if nested is None else nested) if isinstance(n, int | float)]
            values = math.prod(numbers) if func in _BY_SIZE else max(numbers, default=0)
            if abs(values) > self.most and torch.device(kwargs.get("device") or "cpu").type != "meta":
                raise UserError(
                    f"a tensor of {values:.3g} values would be made, expected at most {self.most:.3g} "
                    "by what its file holds; its config.json is damaged or of another model"
                )
        return func(*args, **kwargs)


@contextmanager
def at_most(largest: int) -> Iterator[None]:
    """Refuse the making of a tensor of more values than `largest`, or than `SMALLEST_BOUND` if that is more."""
    with _Bound(max(largest, SMALLEST_BOUND)):
        yield
