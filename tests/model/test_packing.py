"""Packed rows give the outputs of their single examples; examples of a row do not affect each other."""

from typing import Any

import numpy as np
import pytest
import torch

from encoders.stems import PatchEncoder
from kebyt5_xm.adapters import Linear
from kebyt5_xm.data.batch import IGNORE_INDEX, Batch, collate
from kebyt5_xm.data.inputs import Example, MediaItem
from kebyt5_xm.data.media.interface import MediaInterface
from kebyt5_xm.errors import UserError
from kebyt5_xm.evaluation.tally import Tally
from kebyt5_xm.model.attention import span_groups, spans, teacher_forcing
from kebyt5_xm.model.attention.spans import Span
from kebyt5_xm.model.backbone import Backbone
from kebyt5_xm.model.configuration import CrossModalT5Config, SlotBias
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.network import teacher_force, token_losses
from kebyt5_xm.vocabulary import EOS_ID, PAD_ID

SHAPE = {"d_model": 24, "d_kv": 6, "d_ff": 40, "num_heads": 4, "num_layers": 2, "num_decoder_layers": 2}
ROWS = np.asarray([0, 1, 0, 0, 1])
SIZES = ((13, 5), (29, 7), (7, 11), (17, 3), (5, 19))


def model(slot_bias: SlotBias = "shared", attention: Any = "sdpa") -> CrossModalT5:
    torch.manual_seed(3)
    backbone = Backbone(shape=SHAPE, attention=attention).build()
    config = CrossModalT5Config(backbone.config.to_dict(), slot_bias=slot_bias)
    built = CrossModalT5(
        config, backbone, {"image": (PatchEncoder(image_size=8, patch_size=4, out_dim=8), Linear(8, 24))}
    )
    built.calibrate()
    with torch.no_grad():  # distances matter from the start
        for stack in (built.backbone.encoder, built.backbone.decoder):
            stack.block[0].layer[0].SelfAttention.relative_attention_bias.weight.normal_()
    return built.eval()


def examples() -> list[Example]:
    numbers = np.random.default_rng(5)

    def ids(size: int) -> np.ndarray:
        return np.append(numbers.integers(3, 250, size - 1), EOS_ID).astype(np.int16)

    made = [Example(ids(source), ids(target)) for source, target in SIZES]
    pixels = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(1))
    for n, start in ((1, 2), (3, 0)):  # four slots of an image, inside a row and at an example's start
        input_ids = made[n].input_ids.copy()
        input_ids[start : start + 4] = PAD_ID
        made[n] = Example(input_ids, made[n].target_ids, (MediaItem("image", pixels * (n + 1), start, 4),))
    return made


def batch(built: CrossModalT5, chosen: list[Example], rows: np.ndarray | None = None) -> Batch:
    module = built.modality("image")
    interface = MediaInterface("image", module.encoder.preprocessor(), module.adapter)
    part = np.arange(len(chosen))
    return collate(
        chosen,
        part,
        interfaces={"image": interface},
        packed_row=rows,
    ).to("cpu")


def losses(built: CrossModalT5, given: Batch) -> torch.Tensor:
    logits = teacher_force(built, given.inputs, given.labels).logits
    return token_losses(logits, given.labels)


@pytest.mark.parametrize("slot_bias", ["shared", "zero"])
def test_packed_losses_and_gradients_equal_those_of_single_rows(slot_bias: SlotBias) -> None:
    built = model(slot_bias)
    packed = batch(built, examples(), ROWS)
    assert packed.inputs.input_ids.shape == (2, 37)
    assert packed.labels.shape == (2, 26)
    found = losses(built, packed)
    alone = torch.cat([losses(built, batch(built, [example]))[0] for example in examples()])
    order = np.argsort(ROWS, kind="stable")
    ends = np.cumsum([0, *(target for _, target in SIZES)])
    expected = torch.cat([alone[ends[n] : ends[n + 1]] for n in order])
    torch.testing.assert_close(found[packed.labels != IGNORE_INDEX], expected, rtol=1e-4, atol=1e-5)
    found.sum().backward()
    gradients = {name: p.grad.clone() for name, p in built.named_parameters() if p.grad is not None}
    built.zero_grad()
    sum(losses(built, batch(built, [example])).sum() for example in examples()).backward()  # pyright: ignore
    for name, parameter in built.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-4, msg=name)


def test_padding_is_counted_by_input() -> None:
    built = model()
    packed, padded = (batch(built, examples(), rows) for rows in (ROWS, None))
    used, targets = (sum(size) for size in zip(*SIZES, strict=True))
    assert packed.padding == {"text": (used, 2 * 37), "targets": (targets, 2 * 26), "image": (6, 6)}
    assert padded.padding["text"] == (used, 5 * 29)


def test_no_gradient_crosses_a_boundary() -> None:
    built = model()
    packed = batch(built, examples(), ROWS)
    assert packed.inputs.packing is not None
    embedded: list[torch.Tensor] = []

    def keep(module: torch.nn.Module, given: tuple, output: torch.Tensor) -> torch.Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    handle = built.backbone.shared.register_forward_hook(keep)
    found = losses(built, packed)
    handle.remove()
    sources, targets = embedded
    second = packed.inputs.packing.target_segments == 2
    found[second].sum().backward()
    assert sources.grad is not None
    assert targets.grad is not None
    inside = packed.inputs.packing.segments == 2
    assert (sources.grad[inside & (packed.inputs.input_ids != PAD_ID)].abs().sum(-1) > 0).all()
    assert (sources.grad[~inside] == 0).all()
    assert (targets.grad[~second] == 0).all()


def test_other_examples_of_a_row_change_nothing() -> None:
    built = model()
    first = losses(built, batch(built, examples(), ROWS))
    others = examples()
    others[0] = Example(others[0].input_ids[::-1].copy(), others[0].target_ids[::-1].copy())
    second = losses(built, batch(built, others, ROWS))
    assert torch.equal(first[0, 5:], second[0, 5:])
    assert not torch.equal(first[0, :5], second[0, :5])


def test_losses_within_a_row_are_counted_by_part() -> None:
    built = model()
    packed = batch(built, examples(), ROWS)
    tally = Tally(len(SIZES), torch.device("cpu"))
    found = losses(built, packed)
    tally.add(packed, found)
    assert tally._sums[:, 1].tolist() == [target for _, target in SIZES]
    torch.testing.assert_close(tally._sums[:, 0].sum(), found.double().sum())


def test_eager_attention_is_refused() -> None:
    built = model(attention="eager")
    with pytest.raises(UserError, match="eager attention does not apply"):
        losses(built, batch(built, examples(), ROWS))


@pytest.mark.parametrize("rows", [None, ROWS])
def test_spans_from_the_host_are_those_of_the_segments(rows: np.ndarray | None, monkeypatch) -> None:
    built = model()
    given = batch(built, examples(), rows)
    found: list[list[Span]] = []
    monkeypatch.setattr(teacher_forcing, "set_spans", lambda pattern, known: found.append(list(known)))
    losses(built, given)  # finds the spans from the segments
    patterns: list[list[Span] | None] = []
    monkeypatch.setattr(
        span_groups, "find_spans", lambda *args: patterns.append(spans.find_spans(*args)) or patterns[-1]
    )
    losses(built, given)
    assert [list(one) for one in patterns if one is not None]
    for known in found:
        assert known in patterns
