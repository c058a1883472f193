"""Greedy decoding on a GPU in bf16, compared with transformers' `generate`: milliseconds per byte, after encoding.

Both read the same encoder states and write the same number of ids: the head's weights for the end of sequence are
zero, so random weights never choose it. `equal_ids` is the share of equal ids: 1 in fp32 (toy sizes), while rounding
to bf16 decides between the near-equal logits of random weights. `weights_ms` is the time to read the decoder's
weights once at the rate of a copy, a lower bound for a decoder step.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from benchmarks.device import Device, Group
from benchmarks.gpu_training import FULL, Size, random_backbone
from benchmarks.peers import plain_copy
from kebyt5_xm.model.configuration import CrossModalT5Config
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.decoding import greedy_decode
from kebyt5_xm.vocabulary import EOS_ID

BATCHES = (1, 16)
NUM_NEW_IDS = 128
TOY_INPUT, TOY_NUM_NEW_IDS = 31, 11


def groups(sizes: Sequence[Size], device: Device, rates: Mapping[str, float]) -> Iterator[Group]:
    """Yield the measurements, by size."""
    for size in sizes:
        yield (size,), partial(_prepare, size, device, rates["copy_gb_per_s"])


def _prepare(size: Size, device: Device, copy_rate: float) -> dict[str, Callable[[], dict[str, float]]]:
    with torch.device(device.kind):
        backbone = random_backbone(size, device).build()
    with torch.no_grad():
        backbone.lm_head.weight[EOS_ID] = 0
    t5 = plain_copy(backbone)
    dtype = torch.float32 if device.toy else torch.bfloat16
    for module in (backbone, t5):
        module.to(dtype).eval()  # pyright: ignore[reportArgumentType] - its decorator hides `self`
    model = CrossModalT5(CrossModalT5Config(backbone.config.to_dict()), backbone, {}).eval()
    return {f"batch_{rows}": partial(_measure, model, t5, rows, device, copy_rate) for rows in BATCHES}


@torch.no_grad()
def _measure(
    model: CrossModalT5, t5: T5ForConditionalGeneration, rows: int, device: Device, copy_rate: float
) -> dict[str, float]:
    length, num_new_ids = (TOY_INPUT, TOY_NUM_NEW_IDS) if device.toy else (FULL[0], NUM_NEW_IDS)
    inputs = torch.randint(3, 248, (rows, length), device=device.kind)
    states = model.encode(inputs).last_hidden_state
    assert states is not None
    mask = torch.ones_like(inputs)

    def ours() -> Tensor:
        return greedy_decode(model, states, None, num_new_ids)

    def theirs() -> Tensor:
        ids = t5.generate(  # pyright: ignore[reportAttributeAccessIssue] - transformers' protocols
            encoder_outputs=BaseModelOutput(states),
            attention_mask=mask,
            max_new_tokens=num_new_ids,
            do_sample=False,
        )
        return ids[:, 1:]

    device.free_memory()
    ids = ours(), theirs()
    assert ids[0].shape == ids[1].shape == (rows, num_new_ids), [sequences.shape for sequences in ids]
    repeats = 1 if device.toy else 3
    ms = [
        device.measure_seconds(decode, warmup=0, repeats=repeats) * 1000 / num_new_ids
        for decode in (ours, theirs)
    ]
    weights = sum(p.numel() * p.itemsize for part in (t5.decoder, t5.lm_head) for p in part.parameters())
    return {
        "ours_ms_per_byte": ms[0],
        "transformers_ms_per_byte": ms[1],
        "ratio_ours_to_transformers": ms[1] / ms[0],
        "weights_ms": weights / copy_rate / 1e6,
        "equal_ids": float((ids[0] == ids[1]).float().mean()),
        **device.peak_memory(),
    }
