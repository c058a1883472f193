"""Sampling: the distribution from which the next id is drawn. The steps and their order are transformers'.

Letters in shapes: B decoder rows, V the vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampler:
    """Draws ids; called with logits [B, V], it returns [B].

    Args:
        temperature: divides the logits; above 0.
        top_k: only so many of the most probable ids are drawn, and their equals; 0 for all.
        top_p: only the most probable ids that together reach this probability are drawn.
        generator: of the logits' device; torch's global one by default.
    """

    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    generator: torch.Generator | None = None

    def __call__(self, logits: Tensor) -> Tensor:
        probabilities = self.filter(logits).softmax(-1)
        return torch.multinomial(probabilities, 1, generator=self.generator)[:, 0]

    def filter(self, logits: Tensor) -> Tensor:
        """Return the logits [B, V] in fp32, divided by the temperature, minus infinity for ids never drawn."""
        logits = logits.float() / self.temperature
        if 0 < self.top_k < logits.shape[-1]:
            least = logits.topk(self.top_k).values[:, -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        if self.top_p < 1:
            ordered, ids = logits.sort(descending=True, stable=True)
            probabilities = ordered.softmax(-1)
            before = probabilities.cumsum(-1) - probabilities
            needless = before >= self.top_p
            logits = logits.masked_fill(needless.scatter(1, ids, needless), -torch.inf)
        return logits
