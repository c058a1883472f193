"""FSDP2: which modules of the model are sharded units."""

from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from kebyt5_xm.model import CrossModalT5


def shard(model: CrossModalT5, device_mesh: DeviceMesh) -> None:
    """Shard every T5 block by itself and the rest as one unit, over the mesh's data-parallel axis."""
    mesh = device_mesh["data_parallel"]
    for stack in (model.backbone.encoder, model.backbone.decoder):
        for block in stack.block:
            fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
