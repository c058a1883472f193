"""DeepSpeed on CPU processes, for tests alone: Lightning's strategy without its check for CUDA.

Import this before `deepspeed`. It switches off kernels that DeepSpeed would compile.
"""

import os

os.environ["DS_ACCELERATOR"] = "cpu"

import deepspeed.ops
import lightning.pytorch.strategies.deepspeed as lightning_deepspeed
import torch
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy

deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # else it compiles for minutes
lightning_deepspeed._validate_device_index_selection = lambda devices: None


class CPUDeepSpeedStrategy(DeepSpeedStrategy):
    def __init__(self, stage: int) -> None:
        super().__init__(stage=stage, process_group_backend="gloo")

    def setup_environment(self) -> None:
        DDPStrategy.setup_environment(self)

    @property
    def root_device(self) -> torch.device:
        return torch.device("cpu", 0)
