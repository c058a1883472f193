"""Draft heads: their labels, and saving and loading beside the weights."""

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import SHAPE, tiny_model

from kebyt5_xm.commands.export.export import export_backbone
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.draft_heads import FILE, DraftHeads, DraftHeadsModule, draft_labels


def with_heads(**given: Any) -> CrossModalT5:
    model = tiny_model(**given)
    torch.manual_seed(4)
    model.draft_heads = DraftHeadsModule(3, SHAPE["d_model"], 384)
    return model


def test_labels_of_heads_stay_within_their_example() -> None:
    labels = torch.tensor([[11, 12, 13, 1, 21, 22, 1, -100]])
    segments = torch.tensor([[1, 1, 1, 1, 2, 2, 2, 0]])
    none = -100
    assert draft_labels(labels, segments, 2).tolist() == [
        [[12, 13, 1, none, 22, 1, none, none]],
        [[13, 1, none, none, 1, none, none, none]],
    ]
    assert draft_labels(labels[:, :4], None, 2).tolist() == [[[12, 13, 1, none]], [[13, 1, none, none]]]


@pytest.mark.parametrize("kind", ["cross-modal", "text"])
def test_saved_heads_are_loaded_and_the_weights_are_those_of_the_plain_model(tmp_path, kind: str) -> None:
    model = with_heads() if kind == "cross-modal" else with_heads(specs={})
    plain = tiny_model() if kind == "cross-modal" else tiny_model(specs={})
    heads = model.draft_heads
    assert heads is not None

    def save(saved: CrossModalT5, folder: str) -> None:
        if kind == "cross-modal":
            saved.save_pretrained(tmp_path / folder)
        else:
            export_backbone(saved.backbone, tmp_path / folder, denoising={}, draft_heads=saved.draft_heads)

    save(model, "with")
    save(plain, "plain")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("with", "plain")]
    assert weights[0] == weights[1]
    assert not (tmp_path / "plain" / FILE).exists()
    loaded = CrossModalT5.from_pretrained(tmp_path / "with")
    assert loaded.draft_heads is not None
    assert all(
        tensor.equal(heads.state_dict()[key]) for key, tensor in loaded.draft_heads.state_dict().items()
    )
    assert CrossModalT5.from_pretrained(tmp_path / "plain").draft_heads is None
    half = CrossModalT5.from_pretrained(tmp_path / "with", dtype="bfloat16")
    assert half.draft_heads is not None
    assert half.draft_heads.weight.dtype == torch.bfloat16

    (tmp_path / "with" / "digests.json").unlink()  # as of a model that others saved
    tensors = load_file(tmp_path / "with" / FILE)
    save_file({**tensors, "weight": tensors["weight"][:, :, 1:].contiguous()}, tmp_path / "with" / FILE)
    with pytest.raises(UserError, match=r"for width 28 and 384 ids, the model has 29"):
        CrossModalT5.from_pretrained(tmp_path / "with")
    save_file({"weight": tensors["weight"]}, tmp_path / "with" / FILE)
    with pytest.raises(UserError, match="holds weight; expected draft heads"):
        CrossModalT5.from_pretrained(tmp_path / "with")
    (tmp_path / "with" / FILE).unlink()
    with pytest.raises(UserError, match=r"says that it has draft heads, but there is no"):
        CrossModalT5.from_pretrained(tmp_path / "with")
    config = json.loads((tmp_path / "with" / "config.json").read_text())
    assert config["kebyt5_xm"]["draft_heads"] == 3


def test_a_state_dict_with_heads_is_saved(tmp_path) -> None:
    model = with_heads()
    state = {
        key: tensor + 1 if tensor.is_floating_point() else tensor
        for key, tensor in model.state_dict().items()
    }
    model.save_pretrained(tmp_path, state_dict=state)
    loaded = CrossModalT5.from_pretrained(tmp_path)
    assert loaded.state_dict()["draft_heads.table"].equal(state["draft_heads.table"])
    assert loaded.state_dict()["backbone.shared.weight"].equal(state["backbone.shared.weight"])


@pytest.mark.parametrize("count", [0, 16, -1])
def test_a_count_that_no_pass_uses_is_refused(count: int) -> None:
    with pytest.raises(UserError, match=rf"count is {count}, expected 1 to 15"):
        DraftHeads(count)
