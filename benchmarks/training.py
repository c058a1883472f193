"""A training step with sdpa and with eager attention, in bytes and model FLOP per second.

    python -m benchmarks.training                            CUDA: small, bf16; CPU: a tiny shape, fp32
    python -m benchmarks.training --size base --batch 32     on a GPU

A step is forward, backward and RMS-scaled AdamW on inputs of 1024 and targets of 189 ids (those of ByT5's
denoising) on a GPU; shorter ones on a CPU.
"""

import argparse

import torch

from benchmarks.report import measure_seconds, write_report
from kebyt5_xm.data.batch import Batch, Progress
from kebyt5_xm.data.inputs import Inputs
from kebyt5_xm.data.text.denoising import SpanDenoising
from kebyt5_xm.model.backbone import SHAPES, Backbone
from kebyt5_xm.model.configuration import CrossModalT5Config
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.flops import step_flops
from kebyt5_xm.model.network import teacher_force, token_losses
from kebyt5_xm.optimizers import RMSScaledAdamW

TINY = {"d_model": 128, "d_ff": 256, "num_heads": 4, "num_layers": 3, "num_decoder_layers": 2, "d_kv": 32}


def random_batch(size: int, objective: SpanDenoising, device: str) -> Batch:
    """Return random rows without padding, as denoising makes them."""
    torch.manual_seed(0)
    return Batch(
        Inputs(
            torch.randint(3, 248, (size, objective.inputs_length)),
            torch.full((size,), objective.inputs_length),
            full=True,
        ),
        labels=torch.randint(3, 248, (size, objective.targets_length)),
        part=torch.zeros(size),
        progress=Progress(num_targets=size * objective.targets_length),
        num_ids=size * (objective.inputs_length + objective.targets_length),
    ).to(device)


class Step:
    """One optimizer step of a fresh model."""

    def __init__(self, backbone: Backbone, batch: Batch, device: str) -> None:
        t5 = backbone.build()
        self.config = t5.config
        self.model = CrossModalT5(CrossModalT5Config(t5.config.to_dict()), t5, {})
        self.model.to(torch.device(device))  # pyright: ignore[reportArgumentType] - its decorator hides `self`
        self.optimizer = RMSScaledAdamW(self.model.parameters(), lr=1e-3)
        self.batch = batch
        self.device = device

    def __call__(self) -> None:
        batch = self.batch
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            logits = teacher_force(self.model, batch.inputs, batch.labels).logits
        loss = token_losses(logits, batch.labels).sum() / batch.progress.num_targets
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.device == "cuda":
            torch.cuda.synchronize()


def main(args: list[str] | None = None) -> None:
    """Run the benchmark; see the top of this file."""
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training")
    parser.add_argument("--size", choices=sorted(SHAPES), default="small" if cuda else None)
    parser.add_argument("--batch", type=int, default=16 if cuda else 8, help="examples of a step")
    parser.add_argument("--inputs-length", type=int, default=1024 if cuda else 256)
    options = parser.parse_args([] if args is None else args)
    device = "cuda" if cuda else "cpu"
    objective = SpanDenoising(inputs_length=options.inputs_length)
    batch = random_batch(options.batch, objective, device)
    shape = None if options.size else TINY
    steps = {
        kind: Step(Backbone(size=options.size, shape=shape, attention=kind), batch, device)
        for kind in ("sdpa", "eager")
    }
    times = measure_seconds(steps)
    flops = options.batch * step_flops(
        steps["sdpa"].config, objective.inputs_length, objective.targets_length
    )
    figures = {
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "size": options.size or "tiny",
        "examples": options.batch,
        "inputs_length": objective.inputs_length,
        **{
            kind: {"bytes_per_s": batch.num_ids / time, "model_tflop_per_s": flops / time / 1e12}
            for kind, time in times.items()
        },
        "ratio_sdpa_to_eager": times["eager"] / times["sdpa"],
    }
    if cuda:
        figures["peak_memory_gb_of_both"] = torch.cuda.max_memory_allocated() / 1e9
    write_report("training", figures)


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
