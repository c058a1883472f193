"""How the ranks share tensors: FSDP2, the strategy, and what each strategy shards."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.strategies import DeepSpeedStrategy, ModelParallelStrategy, Strategy
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from kebyt5_xm.data.batch import Batch
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.cross_modal import CrossModalT5


class FSDP2(ModelParallelStrategy):
    """Shards parameters, gradients and optimizer state over all ranks.

    By default, Lightning's `ModelParallelStrategy` makes a mesh of tensor parallelism within a node, whose ranks then
    average nothing. Here every rank is data parallel.

    Args:
        save_distributed_checkpoint: if true, a checkpoint is a folder to which every rank writes its part. If false,
            it is one file, which the first rank gathers in its memory. Any number of ranks resumes from either.
    """

    def __init__(
        self, process_group_backend: str | None = None, save_distributed_checkpoint: bool = False
    ) -> None:
        super().__init__(
            tensor_parallel_size=1,
            save_distributed_checkpoint=save_distributed_checkpoint,
            process_group_backend=process_group_backend,
        )

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


def shard(model: CrossModalT5, device_mesh: DeviceMesh) -> None:
    """Shard every T5 block by itself and the rest as one unit, over the mesh's data-parallel axis."""
    mesh = device_mesh["data_parallel"]
    for stack in (model.backbone.encoder, model.backbone.decoder):
        for block in stack.block:
            fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


@dataclass(frozen=True)
class Sharding:
    """How many ranks share each kind of tensor evenly. Shards of FSDP2 do not count: the tensors show them."""

    weights: int = 1
    gradients: int = 1
    optimizer: int = 1
    fp32_copies: bool = False
    """True if the optimizer keeps fp32 copies of trainable weights of lower precision."""


def sharding_of(strategy: Any) -> Sharding:
    """Return what a Lightning strategy shards. DeepSpeed ZeRO 1: the optimizer; 2: gradients too; 3: weights too."""
    if not isinstance(strategy, DeepSpeedStrategy):
        return Sharding()
    stage = dict(strategy.config or {}).get("zero_optimization", {}).get("stage", 0)
    ranks = strategy.world_size
    return Sharding(*(ranks if stage >= needed else 1 for needed in (3, 2, 1)), fp32_copies=True)


def idle_calls(
    batch: Batch, modalities: Iterable[str], world_size: int, device: torch.device
) -> dict[str, int]:
    """Return how often each encoder must run on its dummy input so that all ranks run it equally often.

    Without these runs, the other ranks would wait for the gradients or shards of a rank that has only text.
    """
    names = [*modalities]
    if world_size == 1 or not names:
        return {}
    calls = Counter(group.modality for group in batch.inputs.media)
    local_calls = torch.tensor([calls[name] for name in names], device=device)
    max_calls = local_calls.clone()
    torch.distributed.all_reduce(max_calls, op=torch.distributed.ReduceOp.MAX)
    idle = (max_calls.clamp(min=1) - local_calls).tolist()
    return {name: times for name, times in zip(names, idle, strict=True) if times}


def refuse_caches(modalities: Sequence[str], strategy: Strategy) -> None:
    """Raise `UserError` under ZeRO 3 for `modalities`, those with a feature cache."""
    if getattr(strategy, "zero_stage_3", False):
        raise UserError(
            f"model.modalities.{modalities[0]}.cache: ZeRO 3 shards the encoder, which then must run equally often "
            "on all ranks; take the cache out, or use ZeRO 2, DDP or FSDP2"
        )
