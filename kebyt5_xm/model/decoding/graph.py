"""A decoder whose steps of one id have the same shapes each time, so that a GPU replays them as one CUDA graph.

A step of a small model is a hundred kernels of a few microseconds each; launched one by one they would wait for
Python. The position is a tensor on the device, and attention covers the whole cache, minus infinity behind the
position.

Letters in shapes: B decoder rows, V the vocabulary.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kebyt5_xm.errors import first_line
from kebyt5_xm.model.decoding.buffers import Buffers
from kebyt5_xm.model.decoding.fast import FastDecoder

MIN_IDS = 16
"""Fewer ids than this are not worth a graph, whose capture takes as long as a few steps."""

WARM_UP = 2
"""Steps before capture, in which libraries allocate their workspaces and choose kernels."""

Step = Callable[[], Tensor]


class GraphDecoder(FastDecoder):
    """A `FastDecoder` that runs steps of one id by a captured graph, as long as `capacity` holds them.

    Args:
        capture: takes a step of static shapes and returns one that does the same.
        others: arguments of `FastDecoder`.
    """

    def __init__(self, *others: Any, capture: Callable[[Step], Step], **more: Any) -> None:
        super().__init__(*others, **more)
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            captured = self._cache
            rows = captured.shape[3]
            self._ids = torch.zeros(rows, 1, dtype=torch.long, device=self.device)
            self._position = torch.zeros(1, dtype=torch.long, device=self.device)
            num_states = self._cross[0][0].shape[2]
            span = captured.shape[2]
            buffers = Buffers(self.weights, captured, rows // self.copies, 1, span, num_states)
            caches = captured.unbind(0)

            def step() -> Tensor:
                bias = self._bias_at(self._position, span)
                return self._layers(self._ids, buffers, bias, caches, self._position)

            self._captured, self._static_step = captured, capture(step)

    @torch.inference_mode()
    def step(self, ids: Tensor) -> Tensor:
        """Return the logits [B, n, V] after each of the next ids [B, n]; valid until the next step."""
        if ids.shape[1] > 1 or self._cache is not self._captured or self.length == self._cache.shape[2]:
            return super().step(ids)
        self._ids.copy_(ids)
        self._position.fill_(self.length)
        self.length += 1
        return self._static_step()


def capture_cuda(step: Step) -> Step:
    """Return the step as a CUDA graph; the step itself, with one line that says why, if it cannot be captured."""
    try:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # data loaders pin memory meanwhile
            logits = step()
    except RuntimeError as error:
        print(f"decoding without a CUDA graph, which is slower: {first_line(error)}", flush=True)
        return step

    def replay() -> Tensor:
        graph.replay()
        return logits

    return replay
