"""Decides whether an optimizer step may change the weights: only if its loss and gradient norm are finite.

If the loss of one rank is not finite, that rank's gradient is made NaN, so the norm over all ranks is NaN too. All
ranks thus decide alike without further communication.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer


class StepWatch:
    """Checks one optimizer step after another, on every rank.

    Attributes:
        is_finite: true if the last step was finite, and so has changed the weights.
        gradient_norm: its norm over all ranks, before clipping.
    """

    def __init__(self) -> None:
        self.is_finite = True
        self.gradient_norm = 0.0
        self._losses: list[Tensor] = []  # of each micro-batch, [row]
        self._norms: list[tuple[list[Tensor], Tensor]] = []

    def begin(self) -> None:
        """Start a step."""
        self.is_finite, self.gradient_norm = True, 0.0
        self._losses.clear()

    def add_loss(self, losses: Tensor, factor: float) -> Tensor:
        """Return factor x the sum of a micro-batch's losses [row, T]. If that is not finite, its gradient is NaN."""
        self._losses.append(losses.detach().sum(dim=1))
        loss = losses.sum() * factor
        return loss * torch.where(torch.isfinite(loss.detach()), 1.0, math.nan)

    def judge(self, optimizer: Optimizer, apart: Iterable[Tensor] = ()) -> None:
        """Take the norm of the gradient over all ranks, and decide on the step.

        The gradients of the parameters `apart` have a norm of their own, so they change no other's. A step that is
        not finite loses its gradients, so the optimizer skips all weights.
        """
        chosen = {id(parameter) for parameter in apart}
        parts: list[list[Tensor]] = [[], []]
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parts[id(parameter) in chosen].append(parameter)
        self._norms = [(part, get_total_norm([p.grad for p in part if p.grad is not None])) for part in parts]
        whole = [norm.full_tensor() if isinstance(norm, DTensor) else norm for _, norm in self._norms]
        # The loss of text on a frozen backbone has no graph, so no gradient shows that it is not finite.
        local_loss = torch.stack([losses.sum() for losses in self._losses]).sum()
        figures = [figure.float().to(whole[0].device) for figure in (*whole, local_loss)]
        self.gradient_norm, apart_norm, loss = torch.stack(figures).tolist()
        is_single = not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1
        self.is_finite = math.isfinite(self.gradient_norm + apart_norm) and (
            math.isfinite(loss) or not is_single
        )
        if not self.is_finite:
            for parameter in (*parts[0], *parts[1]):
                parameter.grad = None

    def clip(self, max_norm: float) -> None:
        """Scale the judged gradients to a norm of at most `max_norm`, and those apart likewise."""
        for parameters, norm in self._norms:
            if parameters:
                clip_grads_with_norm_(parameters, max_norm, norm)

    def record(self, is_finite: bool, gradient_norm: float) -> None:
        """Record the decision of DeepSpeed, which decides on its steps itself."""
        self.is_finite, self.gradient_norm = is_finite, gradient_norm

    def bad_rows(self) -> list[list[int]]:
        """Return, for each micro-batch of the step on this rank, the rows whose loss is not finite."""
        return [torch.nonzero(~torch.isfinite(losses)).flatten().tolist() for losses in self._losses]


def fill_gradients(optimizer: Optimizer) -> None:
    """Give a gradient of zero to every weight without one."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
