"""LoRA: the layers it adapts, unchanged keys, the parameters that train, and that merging changes no output."""

import copy
from typing import Any

import pytest
import torch
from tiny_encoders import TORCHAUDIO
from tiny_model import LABELS, ROWS, SHAPE, logits
from torch import nn

from encoders.stems import LogMelEncoder, PatchEncoder
from encoders.torchaudio import TorchaudioEncoder
from kebyt5_xm.adapters import Linear
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.adapter_folder import save_adapter
from kebyt5_xm.model.backbone import Backbone, backbone_hash
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.decoding import open_decoder
from kebyt5_xm.model.decoding.fast import FastDecoder
from kebyt5_xm.model.lora import LORA_SUFFIXES, LoRA, merge_updates
from kebyt5_xm.model.lora_layer import merge
from kebyt5_xm.model.modality import Modality, cache_folder
from kebyt5_xm.training.building import ModelBuilder
from kebyt5_xm.training.groups import Group

ATTENTION = LoRA("backbone.*.SelfAttention.[qv]", rank=3, alpha=5)
EVERYWHERE = {
    "attention": ATTENTION,
    "feed_forward": LoRA("backbone.decoder.*.wo", rank=2, alpha=7),
    "picture": LoRA("modalities.image.*", rank=4, alpha=11),
}


def building(
    lora: dict[str, LoRA] | None = None, groups: dict[str, Group] | None = None, **given: Any
) -> ModelBuilder:
    """A tiny model of text, images and speech; `given` are the backbone's, and `frozen_image`."""
    frozen = given.pop("frozen_image", False)
    modalities = {
        "image": Modality(lambda: PatchEncoder((16, 24), 8, 12, frozen=frozen), Linear),
        "speech": Modality(lambda: LogMelEncoder(13, 4, 8000, 11), Linear),
    }
    return ModelBuilder(Backbone(shape=SHAPE, **given), modalities, "shared", groups or {}, lora or {})


def built(*args: Any, seed: int = 3, **given: Any) -> CrossModalT5:
    torch.manual_seed(seed)
    made = building(*args, **given)
    made.check()
    return made.build()


def trained(model: CrossModalT5) -> CrossModalT5:
    """Set every update to random values, as if trained."""
    torch.manual_seed(7)
    for name, parameter in model.named_parameters():
        if name.endswith(LORA_SUFFIXES[1]):
            nn.init.normal_(parameter, std=0.3)
    return model.eval()


def gradients(model: CrossModalT5, rows: list[Any] = ROWS) -> dict[str, torch.Tensor]:
    torch.manual_seed(11)
    inputs = model.processor(rows)
    model.train()
    model(**inputs, labels=LABELS.expand(len(rows), -1)).loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_lora_starts_with_the_plain_models_outputs_and_keys() -> None:
    plain, with_lora = built(), built(EVERYWHERE)
    added = [name for name in with_lora.state_dict() if name not in plain.state_dict()]
    pictures = [m for m in plain.modality("image").modules() if isinstance(m, nn.Linear)]
    assert len(added) == 2 * (
        2 * (3 + 2) + 2 + len(pictures)
    )  # A and B of q and v, of wo, of the image's layers
    assert all(name.endswith(LORA_SUFFIXES) for name in added)
    for names in ("state_dict", "named_parameters"):
        own = [n for n in dict(getattr(with_lora, names)()) if not n.endswith(LORA_SUFFIXES)]
        assert own == list(dict(getattr(plain, names)()))
    assert all(with_lora.state_dict()[name].equal(tensor) for name, tensor in plain.state_dict().items())
    assert logits(with_lora.eval(), ROWS).equal(logits(plain.eval(), ROWS))
    shapes = {name.rpartition(".lora_")[2]: p.shape for name, p in with_lora.named_parameters()}
    assert shapes["A.default.weight"][0] == shapes["B.default.weight"][1]


def test_merging_gives_the_same_outputs_and_the_hash_of_the_plain_backbone() -> None:
    plain, with_lora = built(), trained(built(EVERYWHERE))
    expected = logits(with_lora, ROWS)
    assert not torch.allclose(logits(plain.eval(), ROWS), expected, atol=1e-2)

    plain.load_state_dict(merge_updates(with_lora.state_dict(), EVERYWHERE))
    torch.testing.assert_close(logits(plain, ROWS), expected, rtol=1e-4, atol=1e-4)
    part = {k.removeprefix("backbone."): v for k, v in with_lora.state_dict().items() if "backbone." in k}
    for name, tensor in merge_updates(part, EVERYWHERE, "backbone.").items():
        assert tensor.equal(plain.backbone.state_dict()[name])

    merge(with_lora)
    assert with_lora.state_dict().keys() == plain.state_dict().keys()
    assert type(with_lora.backbone.encoder.block[0].layer[0].SelfAttention.q) is nn.Linear
    torch.testing.assert_close(logits(with_lora, ROWS), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(with_lora.state_dict(), plain.state_dict(), rtol=1e-6, atol=1e-6)


def test_a_model_with_unmerged_updates_is_not_saved(tmp_path) -> None:
    model = built({"attention": ATTENTION})
    model.config.modalities = {
        name: {
            "encoder": {"class_path": f"encoders.stems.{kind}"},
            "adapter": {"class_path": "kebyt5_xm.Linear"},
        }
        for name, kind in (("image", "PatchEncoder"), ("speech", "LogMelEncoder"))
    }
    with pytest.raises(UserError, match=r"holds LoRA updates.*merge\(model\)"):
        model.save_pretrained(tmp_path / "out")
    with pytest.raises(UserError, match=r"holds LoRA updates"):
        backbone_hash(model.backbone)


def test_parts_with_lora_are_frozen_and_the_others_train() -> None:
    model = built({"attention": ATTENTION})
    grads = gradients(model)
    for name, parameter in model.named_parameters():
        trains = name.endswith(LORA_SUFFIXES) or not name.startswith("backbone.")
        assert parameter.requires_grad is trains, name
        assert (name in grads) is trains, name
    assert any(tensor.any() for name, tensor in grads.items() if name.endswith(LORA_SUFFIXES[1]))


def test_a_frozen_encoder_with_lora_keeps_a_graph_and_stays_in_eval_mode() -> None:
    model = built({"picture": LoRA("modalities.image.encoder.*", rank=2)}, frozen_image=True)
    encoder = model.modality("image").encoder
    trained(model).train()
    assert encoder.frozen
    assert encoder.trains
    assert not encoder.has_fixed_features
    assert not encoder.training
    with pytest.raises(UserError, match="PatchEncoder trains"):
        cache_folder("caches", encoder)
    grads = gradients(model)
    inside = {name: p for name, p in model.named_parameters() if name.startswith("modalities.image.encoder.")}
    assert {name for name in inside if name in grads} == {
        name for name in inside if name.endswith(LORA_SUFFIXES)
    }
    assert all(grads[name].any() for name in inside if name.endswith(LORA_SUFFIXES))


def test_a_merged_lora_in_a_frozen_encoder_is_saved_with_the_adapter(tmp_path) -> None:
    """The merged weights differ from those that the constructor gives, though nothing in the encoder trains."""
    for name, lora in (("plain", {}), ("lora", {"picture": LoRA("modalities.image.encoder.*", rank=2)})):
        model = trained(built(lora, frozen_image=True))
        merge(model)
        assert model.modality("image").encoder.has_fixed_features
        model.config.modalities = {
            "image": {
                "encoder": {"class_path": "encoders.stems.PatchEncoder"},
                "adapter": {"class_path": "kebyt5_xm.adapters.Linear"},
            }
        }
        save_adapter(model, "image", tmp_path / name)
        assert (tmp_path / name / "encoder.safetensors").exists() is (name == "lora")


def test_lora_learns_in_a_frozen_encoder_whose_layer_weights_learn() -> None:
    def weighted() -> TorchaudioEncoder:
        return TorchaudioEncoder(
            "WAV2VEC2_XLSR_300M", pretrained=False, shape=TORCHAUDIO, layer="weighted", frozen=True
        )

    def with_lora(dropout: float) -> ModelBuilder:
        entries = {"speech": LoRA("modalities.speech.encoder.*.attention.*", rank=2, dropout=dropout)}
        modalities = {"speech": Modality(weighted, Linear)}
        thawed = {"layers": Group("modalities.speech.encoder.layer_logits", frozen=False)}
        return ModelBuilder(Backbone(shape=SHAPE), modalities, "shared", thawed, entries)

    model = with_lora(0.0).build()
    encoder = trained(model).train().modality("speech").encoder
    assert not any(module.training for module in encoder.modules())
    encoder(*encoder.dummy()).features.square().sum().backward()
    learning = {name for name, p in encoder.named_parameters() if p.grad is not None}
    expected = {
        name for name, _ in encoder.named_parameters() if name.endswith((*LORA_SUFFIXES, "layer_logits"))
    }
    assert learning == expected
    assert len(expected) > 1
    with pytest.raises(UserError, match="stays in eval mode, without dropout"):
        with_lora(0.1).check()


def test_groups_freeze_and_unfreeze() -> None:
    groups = {
        "norms": Group("backbone.*layer_norm*", lr=0.1, frozen=False),
        "speech": Group("modalities.speech.*", frozen=True),
    }
    model = built({"attention": ATTENTION}, groups)
    for name, parameter in model.named_parameters():
        expected = (
            name.endswith(LORA_SUFFIXES) or "layer_norm" in name or name.startswith("modalities.image.")
        )
        assert parameter.requires_grad is expected, name


@pytest.mark.parametrize(
    ("lora", "groups", "given", "words"),
    [
        (
            "backbone.*.SelfAttention.qq",
            {},
            {},
            r"matches no module; did you mean 'backbone.*SelfAttention.q'",
        ),
        ("backbone.encodr.*", {}, {}, r"matches no module; did you mean 'backbone.encoder.*'"),
        ("zzzzz", {}, {}, r"matches no module; names look like 'modalities\.speech\.adapter"),
        ("*.layer_norm", {}, {}, "matches RMSNorm, but no Linear layer"),
        (["backbone.*.q", "backbone.*.[qkv]"], {}, {}, r"model\.lora\.0: a later entry takes every layer"),
        (ATTENTION, {"g": Group("*.k.weight", frozen=True)}, {}, "frozen already"),
        (
            ATTENTION,
            {"g": Group("*.q.weight", frozen=False)},
            {},
            "adds an update to 'backbone.*q.weight'",
        ),
        (ATTENTION, {"g": Group("backbone.*", frozen=True)}, {}, "which model.lora adds to be trained"),
        (
            ATTENTION,
            {"g": Group("*.k.weight", frozen=False)},
            {"frozen": True},
            "backbone, which has `frozen",
        ),
        (ATTENTION, {"g": Group("*.k.weight", lr=0.1)}, {}, "only frozen parameters"),
        (
            LoRA("modalities.image.*", dropout=0.1),
            {},
            {"frozen_image": True},
            r"stays in eval mode, without dropout; set the dropout to 0",
        ),
    ],
)
def test_settings_that_contradict_or_do_nothing_are_refused(
    lora: Any, groups: Any, given: Any, words: str
) -> None:
    entries = [
        LoRA(entry) if isinstance(entry, str) else entry
        for entry in (lora if isinstance(lora, list) else [lora])
    ]
    with pytest.raises(UserError, match=words):
        building({str(n): entry for n, entry in enumerate(entries)}, groups, **given).check()


def test_a_feature_cache_of_an_encoder_with_lora_is_refused() -> None:
    made = building({"picture": LoRA("modalities.image.*")}, frozen_image=True)
    made.modalities["image"].cache = "caches"
    with pytest.raises(UserError, match=r"modalities\.image\.cache holds.*model\.lora changes"):
        made.check()


def test_values_out_of_range_are_refused() -> None:
    for wrong in ({"rank": 0}, {"alpha": 0}, {"dropout": 1.0}):
        with pytest.raises(UserError, match="LoRA pattern 'x'; expected a rank"):
            LoRA("x", **wrong)


def test_layers_of_fused_modules_are_refused() -> None:
    from kebyt5_xm.model.lora import find_targets

    model = nn.ModuleDict({"fused": nn.TransformerEncoderLayer(6, 2, 7), "plain": nn.Linear(3, 5)})
    assert find_targets(model, {"all": LoRA("*")}) == {"plain": "all"}
    with pytest.raises(UserError, match="fused attention reads the weights"):
        find_targets(model, {"all": LoRA("fused.*")})


@pytest.mark.parametrize("rows", [ROWS, ROWS[:1]], ids=["media", "text"])
@pytest.mark.parametrize(
    "lora", [{}, {"attention": LoRA(ATTENTION.pattern, 3, dropout=0.2)}], ids=["full", "lora"]
)
def test_gradient_checkpointing_changes_no_gradient(lora: dict[str, LoRA], rows: list[Any]) -> None:
    """With dropout, under adapters that train; LoRA freezes the embeddings, so text has no gradient."""
    found, calls = [], []
    for on in (False, True):
        model = trained(built(lora, dropout=0.1, gradient_checkpointing=on))
        count: list[int] = []
        model.backbone.encoder.block[0].layer[0].register_forward_hook(
            lambda *_, count=count: count.append(1)
        )
        found.append(gradients(model, rows))
        calls.append(len(count))
    assert calls == [1, 2], "activations are computed again"
    assert found[0].keys() == found[1].keys()
    assert any("backbone.encoder" in name for name in found[0])
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-5, atol=1e-6, msg=name)


def test_gradient_checkpointing_under_a_frozen_backbone() -> None:
    found = [gradients(built(frozen=True, gradient_checkpointing=on)) for on in (False, True)]
    assert all(name.startswith("modalities.") for name in found[0])
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        assert gradient.any(), name
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-5, atol=1e-6, msg=name)


def test_a_layer_uses_weights_that_sharding_replaced() -> None:
    """A layer uses the parameter that has its name now, and so does a copy of the layer."""
    model = built({"attention": ATTENTION})
    layer: Any = model.backbone.encoder.block[0].layer[0].SelfAttention.q
    x = torch.randn(5, layer.in_features)
    before = layer(x)
    twin = copy.deepcopy(layer)
    layer.weight = nn.Parameter(layer.weight * 2, requires_grad=False)
    torch.testing.assert_close(layer(x), before * 2)  # B is zero
    torch.testing.assert_close(twin(x), before)


def test_decoding_includes_the_updates() -> None:
    model = trained(built(EVERYWHERE))
    states, ids = torch.randn(2, 5, SHAPE["d_model"]), torch.tensor([[0, 70, 80], [0, 90, 3]])

    def expected() -> torch.Tensor:
        with torch.no_grad():
            return model(encoder_outputs=(states,), decoder_input_ids=ids).logits

    plain = open_decoder(built(), states, None).step(ids)
    decoder = open_decoder(model, states, None)
    assert isinstance(decoder, FastDecoder)
    found = decoder.step(ids)
    torch.testing.assert_close(found, expected(), atol=1e-4, rtol=1e-4)
    assert (found - plain).abs().max() > 0.01
    merge(model)
    torch.testing.assert_close(open_decoder(model, states, None).step(ids), expected(), atol=1e-4, rtol=1e-4)
