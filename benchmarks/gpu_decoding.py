"""Greedy decoding on a GPU in bf16, beside transformers' `generate`: milliseconds a byte, after encoding.

Both read the same encoder states and write the same number of ids: the head gives the end of sequence a score of
zero, which random weights never write. `weights_ms` is what reading the decoder's weights once takes at the rate of a
copy, which no step of the decoder can be faster than.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from benchmarks.device import Device, Group
from benchmarks.gpu_training import FULL, Size, backbone_of
from kebyt5_xm.model.configuration import CrossModalT5Config
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.decoding import greedy_decode
from kebyt5_xm.vocabulary import EOS_ID

BATCHES = (1, 16)
WRITTEN = 128
TOY_INPUT, TOY_WRITTEN = 31, 11


def groups(sizes: Sequence[Size], device: Device, rates: Mapping[str, float]) -> Iterator[Group]:
    """Yield what there is to measure, by size."""
    for size in sizes:
        yield (size,), partial(_measurements, size, device, rates["copy_gb_per_s"])


def _measurements(size: Size, device: Device, copy_rate: float) -> dict[str, Callable[[], dict[str, float]]]:
    with torch.device(device.kind):
        t5 = backbone_of(size, "sdpa", device).build()
    with torch.no_grad():
        t5.lm_head.weight[EOS_ID] = 0
    t5.to(torch.bfloat16).eval()  # pyright: ignore[reportArgumentType] - its decorator hides `self`
    model = CrossModalT5(CrossModalT5Config(t5.config.to_dict()), t5, {}).eval()
    return {f"batch_{rows}": partial(_figures, model, t5, rows, device, copy_rate) for rows in BATCHES}


@torch.no_grad()
def _figures(
    model: CrossModalT5, t5: T5ForConditionalGeneration, rows: int, device: Device, copy_rate: float
) -> dict[str, float]:
    length, written = (TOY_INPUT, TOY_WRITTEN) if device.toy else (FULL[0], WRITTEN)
    inputs = torch.randint(3, 248, (rows, length), device=device.kind)
    states = model.encode(inputs).last_hidden_state
    assert states is not None
    mask = torch.ones_like(inputs)

    def ours() -> Tensor:
        return greedy_decode(model, states, None, written)

    def theirs() -> Tensor:
        ids = t5.generate(  # pyright: ignore[reportAttributeAccessIssue] - transformers' protocols
            encoder_outputs=BaseModelOutput(states),
            attention_mask=mask,
            max_new_tokens=written,
            do_sample=False,
        )
        return ids[:, 1:]

    device.forget()
    found = ours(), theirs()
    assert found[0].shape == found[1].shape == (rows, written), [ids.shape for ids in found]
    repeats = 1 if device.toy else 3
    ms = [device.seconds(write, warmup=0, repeats=repeats) * 1000 / written for write in (ours, theirs)]
    weights = sum(p.numel() * p.itemsize for part in (t5.decoder, t5.lm_head) for p in part.parameters())
    return {
        "ours_ms_per_byte": ms[0],
        "transformers_ms_per_byte": ms[1],
        "ratio_ours_to_transformers": ms[1] / ms[0],
        "weights_ms": weights / copy_rate / 1e6,
        "equal_ids": float((found[0] == found[1]).float().mean()),
        **device.peak_memory(),
    }
