"""FSDP2: the strategy, and which modules of the model are sharded units."""

from lightning.pytorch.strategies import ModelParallelStrategy
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from kebyt5_xm.model.cross_modal import CrossModalT5


def shard(model: CrossModalT5, device_mesh: DeviceMesh) -> None:
    """Shard every T5 block by itself and the rest as one unit, over the mesh's data-parallel axis."""
    mesh = device_mesh["data_parallel"]
    for stack in (model.backbone.encoder, model.backbone.decoder):
        for block in stack.block:
            fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


class FSDP2(ModelParallelStrategy):
    """Parameters, gradients and optimizer state sharded over all ranks.

    Lightning's `ModelParallelStrategy` makes a mesh of tensor parallelism within a node by default, on which
    nothing is averaged over the node's ranks; here every rank is data parallel.

    Args:
        save_distributed_checkpoint: a checkpoint is a folder to which every rank writes its part, instead of one file
            for which the first rank gathers everything in its memory. Any number of ranks resumes from either.
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
