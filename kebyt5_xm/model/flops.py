"""Floating-point operations (FLOP) of training, and how many per second a device can do.

Letters: D d_model, I inner width (heads x d_kv), F d_ff, V vocabulary, S encoder and T decoder positions.
"""

from collections.abc import Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import T5Config, T5ForConditionalGeneration

from kebyt5_xm.data.batch import Batch
from kebyt5_xm.model.network import CrossModalNetwork

A100 = 312.0
PEAK_TFLOPS = {
    **dict.fromkeys(
        ("NVIDIA A100-SXM4-40GB", "NVIDIA A100-SXM4-80GB", "NVIDIA A100-PCIE-40GB", "NVIDIA A100 80GB PCIe"),
        A100,
    ),
    "NVIDIA A30": 165.0,
    "NVIDIA A40": 149.7,
    "NVIDIA A10": 125.0,
    "NVIDIA RTX A6000": 154.8,
    "NVIDIA L4": 121.0,
    "NVIDIA L40S": 362.0,
    "NVIDIA GeForce RTX 3090": 71.0,
    "NVIDIA GeForce RTX 4090": 165.2,
    "NVIDIA H100 80GB HBM3": 989.4,
    "NVIDIA H100 PCIe": 756.0,
    "NVIDIA H100 NVL": 835.5,
    "NVIDIA H200": 989.4,
    "NVIDIA GH200 480GB": 989.4,
    "NVIDIA B200": 2250.0,
}
"""Name that CUDA gives a device -> dense bf16 TFLOP/s with fp32 sums, as in its NVIDIA data sheet: half of the
figures "with sparsity". Those of GeForce cards are in NVIDIA's whitepapers on Ampere GA102 and Ada."""


def peak_flops(device: torch.device) -> float | None:
    """Return the device's dense bf16 FLOP per second, None where it is not in `PEAK_TFLOPS`."""
    if device.type != "cuda":
        return None
    peak = PEAK_TFLOPS.get(torch.cuda.get_device_name(device))
    return None if peak is None else peak * 1e12


def step_flops(config: T5Config, inputs: int, targets: int, passes: float = 3.0) -> float:
    """Return the floating-point operations of training on one example of S inputs and T targets.

    A multiply-add counts as two; norms, softmax and bias are left out. `passes` counts forward passes of that cost:
    the backward pass is worth two (see `training_passes`). 2.99e12 for byt5-base at 1024 + 189.
    """
    inner, width, s, t = config.num_heads * config.d_kv, config.d_model, inputs, targets
    feed_forward = 3 * width * config.d_ff
    encoder = 2 * s * (4 * width * inner + feed_forward) + 4 * s * s * inner
    decoder = 2 * t * (6 * width * inner + feed_forward) + 2 * s * 2 * width * inner  # keys, values of S
    decoder += 4 * t * (t + s) * inner
    head = 2 * t * width * config.vocab_size
    layers = config.num_layers * encoder + (config.num_decoder_layers or config.num_layers) * decoder
    return passes * (layers + head)


def training_passes(backbone: T5ForConditionalGeneration) -> float:
    """Return the cost of training on an example in forward passes: 1, 1 for the gradient of the activations, and 1
    for that of the weights, times the share of the weights that train.
    """
    # ZeRO 3 leaves parameters empty, with their size beside them
    sizes = [(getattr(p, "ds_numel", p.numel()), p.requires_grad) for p in backbone.parameters()]
    return 2.0 + sum(n for n, trains in sizes if trains) / sum(n for n, _ in sizes)


def examples_flops(config: T5Config, lengths: Sequence[tuple[int, int]], passes: float) -> float:
    """Return the sum of `step_flops` over examples of these lengths (S, T)."""
    return sum(step_flops(config, inputs, targets, passes) for inputs, targets in lengths)


def media_flops(model: CrossModalNetwork, batch: Batch) -> float:
    """Return the floating-point operations of training on the media of `batch`, as PyTorch counts them.

    An encoder that does not train has no backward pass; an encoder with cached features does not run.
    """
    total = 0.0
    for group in batch.inputs.media:
        module = model.modality(group.modality)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            module(group.prepared, group.lengths, group.encoded)
        whole = float(counter.get_total_flops())
        frozen = 0.0
        if not module.encoder.trains and not group.encoded:
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                module.encoder(group.prepared, group.lengths)
            frozen = float(counter.get_total_flops())
        total += frozen + 3.0 * (whole - frozen)
    return total
