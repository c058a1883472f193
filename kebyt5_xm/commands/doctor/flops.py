"""Floating-point operations of training.

Letters: D d_model, I inner width (heads x d_kv), F d_ff, V vocabulary, S encoder and T decoder positions.
"""

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import T5Config

from kebyt5_xm.data.batch import Batch
from kebyt5_xm.model.cross_modal import CrossModalT5


def step_flops(config: T5Config, inputs: int, targets: int) -> float:
    """Return the floating-point operations of training on one example of S inputs and T targets.

    A multiply-add counts as two; the backward pass counts as two forward passes; norms, softmax and bias are left
    out. 2.99e12 for byt5-base at 1024 + 189.
    """
    inner, width, s, t = config.num_heads * config.d_kv, config.d_model, inputs, targets
    feed_forward = 3 * width * config.d_ff
    encoder = 2 * s * (4 * width * inner + feed_forward) + 4 * s * s * inner
    decoder = 2 * t * (6 * width * inner + feed_forward) + 2 * s * 2 * width * inner  # keys, values of S
    decoder += 4 * t * (t + s) * inner
    head = 2 * t * width * config.vocab_size
    layers = config.num_layers * encoder + (config.num_decoder_layers or config.num_layers) * decoder
    return 3.0 * (layers + head)


def media_flops(model: CrossModalT5, batch: Batch) -> float:
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
