"""Frozen encoders on a GPU in bf16: items a second, compared with their library called plainly.

Random weights cost as much time as pretrained ones. Ours run as in training with `precision: bf16-mixed`: weights in
fp32, autocast, no gradient. The library's model has bf16 weights. Inputs are on the device already.

- `image`: timm's ViT-B/16 at 224 pixels;
- `speech`: transformers' wav2vec 2.0 base on recordings of 5 seconds.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.device import Device, Group
from kebyt5_xm.encoder import Encoder

IMAGE_MODEL, TOY_IMAGE_MODEL = "vit_base_patch16_224", "test_vit"
IMAGE_SIDE, TOY_IMAGE_SIDE = 224, 160
SPEECH_MODEL = "wav2vec2"
SPEECH_SAMPLES, TOY_SPEECH_SAMPLES = 5 * 16_000, 1_600
TOY_SPEECH = {
    "hidden_size": 32,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 48,
    "conv_dim": [16] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
BATCHES, TOY_BATCHES = {"image": (16, 64, 256), "speech": (4, 16, 64)}, {"image": (2, 3), "speech": (2, 3)}


def groups(sizes: Sequence[str], device: Device, rates: Mapping[str, float]) -> Iterator[Group]:
    """Yield the measurements, by medium."""
    for medium, make in {"image": _image, "speech": _speech}.items():
        yield (medium,), partial(_prepare, medium, make, device)


def _image(device: Device) -> tuple[Encoder, nn.Module, Callable[[Tensor], Tensor], tuple[int, ...]]:
    import timm  # only for this part

    from encoders.timm import TimmEncoder

    name, side = (TOY_IMAGE_MODEL, TOY_IMAGE_SIDE) if device.toy else (IMAGE_MODEL, IMAGE_SIDE)
    theirs = timm.create_model(name, pretrained=False)
    ours = TimmEncoder(name, pretrained=False, frozen=True)
    return ours, theirs, lambda images: theirs.forward_features(images), (3, side, side)  # pyright: ignore[reportCallIssue]


def _speech(device: Device) -> tuple[Encoder, nn.Module, Callable[[Tensor], Tensor], tuple[int, ...]]:
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    from encoders.transformers import TransformersEncoder

    config = TOY_SPEECH if device.toy else {}
    theirs = Wav2Vec2Model(Wav2Vec2Config(**config))
    ours = TransformersEncoder(SPEECH_MODEL, pretrained=False, frozen=True, config=config)
    samples = TOY_SPEECH_SAMPLES if device.toy else SPEECH_SAMPLES
    return ours, theirs, lambda waveforms: theirs(waveforms).last_hidden_state, (samples,)


def _prepare(
    medium: str,
    make: Callable[[Device], tuple[Encoder, nn.Module, Callable[[Tensor], Tensor], tuple[int, ...]]],
    device: Device,
) -> dict[str, Callable[[], dict[str, float]]]:
    ours, theirs, call, shape = make(device)
    ours.to(device.kind)
    theirs.to(device.kind, torch.bfloat16).eval()
    sizes = (TOY_BATCHES if device.toy else BATCHES)[medium]
    return {f"batch_{rows}": partial(_measure, ours, call, (rows, *shape), device) for rows in sizes}


@torch.no_grad()
def _measure(
    ours: Encoder, call: Callable[[Tensor], Tensor], shape: tuple[int, ...], device: Device
) -> dict[str, float]:
    device.free_memory()
    items = torch.randn(shape, device=device.kind)
    lengths = torch.full(shape[:1], shape[1], device=device.kind)

    def encode() -> Tensor:
        with torch.autocast(device.kind, torch.bfloat16):
            return ours(items, lengths).features

    plain = items.bfloat16()
    num_ours, num_theirs = encode().shape[1], call(plain).shape[1]
    assert num_ours <= num_theirs <= num_ours + 1, (num_ours, num_theirs)  # a class token, which ours drops
    seconds = [
        device.measure_seconds(function, warmup=2, repeats=1 if device.toy else 7)
        for function in (encode, lambda: call(plain))
    ]
    return {
        "items_per_s": shape[0] / seconds[0],
        "library_items_per_s": shape[0] / seconds[1],
        "ratio_ours_to_library": seconds[1] / seconds[0],
        **device.peak_memory(),
    }
