"""The strategies of two ranks, as recipes name them; DeepSpeed's run on CPU processes here."""

STRATEGIES = {
    "ddp": "ddp",
    "fsdp2": {"class_path": "kebyt5_xm.training.sharding.FSDP2"},
    "zero2": {"class_path": "cpu_deepspeed.CPUDeepSpeedStrategy", "init_args": {"stage": 2}},
    "zero3": {"class_path": "cpu_deepspeed.CPUDeepSpeedStrategy", "init_args": {"stage": 3}},
}
