"""Layer-wise learning rates: block i of a stack has lr x decay^(blocks above it), its embeddings once more."""

import pytest
import torch
from torch import nn

from kebyt5_xm.errors import UserError
from kebyt5_xm.model.backbone import Backbone
from kebyt5_xm.model.t5 import without_weights
from kebyt5_xm.training.groups import Group, make_optimizer_groups, scale_rates
from kebyt5_xm.training.layer_decay import find_places

SHAPE = {"d_model": 7, "d_ff": 11, "num_heads": 2, "num_layers": 3, "num_decoder_layers": 2, "d_kv": 5}
BACKBONE = [
    f"backbone.{name}" for name, _ in without_weights(Backbone(shape=SHAPE).config()).named_parameters()
]
TIMM = [
    "modalities.image.encoder.model.cls_token",
    "modalities.image.encoder.model.patch_embed.proj.weight",
    *(f"modalities.image.encoder.model.blocks.{n}.attn.qkv.weight" for n in range(12)),
    "modalities.image.encoder.model.norm.weight",
    "modalities.image.adapter.projection.weight",
]
WAV2VEC2 = [
    "modalities.speech.encoder.model.feature_extractor.conv_layers.0.conv.weight",
    "modalities.speech.encoder.model.encoder.pos_conv_embed.conv.bias",
    *(f"modalities.speech.encoder.model.encoder.layers.{n}.attention.k_proj.weight" for n in range(3)),
]


def rates(
    pattern: str, names: list[str], decay: float = 0.5, lr: float | None = 1.0
) -> dict[str, list[float]]:
    """Return learning rate by optimizer group, and by parameter."""
    named = [(name, nn.Parameter(torch.zeros(3))) for name in names]
    group = Group(pattern, lr=lr, layer_decay=decay)
    optimizer = torch.optim.AdamW(make_optimizer_groups({"tower": group}, named), lr=2.0)
    scale_rates(optimizer)
    assert sum(len(entry["params"]) for entry in optimizer.param_groups) == len(names)
    return {entry["name"]: entry["lr"] for entry in optimizer.param_groups}


def test_both_stacks_of_the_backbone() -> None:
    assert rates("*", BACKBONE) == {
        "tower/encoder.block.below": 0.125,
        "tower/encoder.block.0": 0.25,
        "tower/encoder.block.1": 0.5,
        "tower/encoder.block.2": 1.0,
        "tower": 1.0,  # last norms and the head
        "tower/decoder.block.0": 0.5,
        "tower/decoder.block.1": 1.0,
    }
    place = find_places(BACKBONE)
    assert place["backbone.shared.weight"].above == 3  # pyright: ignore[reportOptionalMemberAccess]
    for name in ("encoder.final_layer_norm", "decoder.final_layer_norm", "lm_head"):
        assert place[f"backbone.{name}.weight"].above == 0  # pyright: ignore[reportOptionalMemberAccess]


def test_stacks_of_encoders_and_the_default_rate_of_the_optimizer() -> None:
    names = BACKBONE + TIMM + WAV2VEC2
    found = rates("modalities.*", names, decay=0.9, lr=None)
    assert found.pop("default") == 2.0  # the backbone
    blocks = {f"tower/image.encoder.model.blocks.{n}": 2 * 0.9 ** (11 - n) for n in range(12)}
    layers = {f"tower/speech.encoder.model.encoder.layers.{n}": 2 * 0.9 ** (2 - n) for n in range(3)}
    below = {
        "tower/image.encoder.model.blocks.below": 2 * 0.9**12,
        "tower/speech.encoder.model.encoder.layers.below": 2 * 0.9**3,
    }
    assert found == pytest.approx({**blocks, **layers, **below, "tower": 2.0})


def test_depth_is_that_of_the_model_for_a_pattern_of_some_blocks() -> None:
    assert rates("backbone.encoder.block.[01].*", BACKBONE)["tower/encoder.block.0"] == 0.25


@pytest.mark.parametrize("decay", [0.0, -0.5, 1.01])
def test_decays_out_of_range_are_refused(decay: float) -> None:
    with pytest.raises(UserError, match=r"expected more than 0 and at most 1"):
        Group("*", layer_decay=decay)


def test_a_decay_without_a_stack_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"model\.groups\.tower: layer_decay is 0\.5, but nothing.*numbered blocks"
    ):
        rates("*", ["modalities.image.encoder.mlp.0.weight", "modalities.image.adapter.weight"])


def test_a_frozen_group_with_a_rate_is_refused() -> None:
    with pytest.raises(UserError, match="frozen and has a learning rate or a decay"):
        Group("*", lr=0.1, frozen=True)


def test_blocks_of_an_adapter_have_the_full_rate() -> None:
    """`PerceiverResampler` has numbered blocks too, after those of the encoder."""
    adapter = [f"modalities.image.adapter.blocks.{n}.output.weight" for n in range(3)]
    place = find_places(TIMM + adapter)
    assert {place[name].above for name in adapter} == {0}  # pyright: ignore[reportOptionalMemberAccess]
    assert place[TIMM[2]].above == 11  # pyright: ignore[reportOptionalMemberAccess]
    assert rates("modalities.*", TIMM + adapter, decay=0.5)["tower"] == 1.0
    with pytest.raises(UserError, match="belongs to a stack"):
        rates("*", adapter)
