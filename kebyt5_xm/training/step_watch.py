"""Decides whether an optimizer step may change the weights: only if its loss and gradient norm are finite.

If the loss of one rank is not finite, that rank's gradient is made NaN, so the norm over all ranks is NaN too. All
ranks thus decide alike without further communication.
"""

import math

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

    def begin(self) -> None:
        """Start a step."""
        self.is_finite, self.gradient_norm = True, 0.0
        self._losses.clear()

    def add_loss(self, losses: Tensor, factor: float) -> Tensor:
        """Return factor x the sum of a micro-batch's losses [row, T]. If that is not finite, its gradient is NaN."""
        self._losses.append(losses.detach().sum(dim=1))
        loss = losses.sum() * factor
        return loss * torch.where(torch.isfinite(loss.detach()), 1.0, math.nan)

    def judge(self, optimizer: Optimizer) -> Tensor:
        """Return the norm [] of the gradient over all ranks, and decide on the step.

        A step that is not finite loses its gradients, so the optimizer skips all weights.
        """
        gradients = [
            p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None
        ]
        norm = get_total_norm(gradients)
        total_norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        # The loss of text on a frozen backbone has no graph, so no gradient shows that it is not finite.
        local_loss = torch.stack([losses.sum() for losses in self._losses]).sum().to(total_norm.device)
        self.gradient_norm, loss = torch.stack([total_norm.float(), local_loss.float()]).tolist()
        is_single = not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1
        self.is_finite = math.isfinite(self.gradient_norm) and (math.isfinite(loss) or not is_single)
        if not self.is_finite:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None
        return norm

    def clip(self, optimizer: Optimizer, max_norm: float, norm: Tensor) -> None:
        """Scale the gradients, whose norm is `norm`, to a norm of at most `max_norm`."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        clip_grads_with_norm_(parameters, max_norm, norm)

    def record(self, is_finite: bool, gradient_norm: float) -> None:
        """Record the decision of DeepSpeed, which decides on its steps itself."""
        self.is_finite, self.gradient_norm = is_finite, gradient_norm

    def bad_rows(self) -> list[list[int]]:
        """Return, for each micro-batch of the step on this rank, the rows whose loss is not finite."""
        return [torch.nonzero(~torch.isfinite(losses)).flatten().tolist() for losses in self._losses]
