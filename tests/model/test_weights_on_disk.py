"""Weight files: shards when large, nothing left of an earlier model, digests that find every damaged file."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny_model import SPECS, tiny_model
from transformers import T5ForConditionalGeneration

from kebyt5_xm.commands.compose import compose
from kebyt5_xm.commands.export.export import export_backbone
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.adapter_folder import save_adapter
from kebyt5_xm.model.backbone import Backbone
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.weight_files import write_digests, write_weights

TENSORS = {"a": torch.arange(7.0), "b": torch.arange(11.0), "c": torch.arange(90.0), "d": torch.arange(3.0)}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "config.json")


def test_large_weights_are_shards_and_nothing_of_an_earlier_model_stays(tmp_path: Path):
    write_weights(TENSORS, tmp_path, max_shard_bytes=100)
    shards = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    assert names(tmp_path) == [*shards, "model.safetensors.index.json"]
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(TENSORS)
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in TENSORS.values())
    (tmp_path / "model-of-mine.safetensors").touch()
    write_weights(TENSORS, tmp_path)
    assert names(tmp_path) == ["model-of-mine.safetensors", "model.safetensors"]
    write_weights(TENSORS, tmp_path, max_shard_bytes=100)
    assert "model.safetensors" not in names(tmp_path)


def test_a_text_export_in_shards_is_read_by_transformers_and_by_us(tmp_path: Path, monkeypatch):
    model = tiny_model(specs={}).backbone
    monkeypatch.setattr("kebyt5_xm.commands.export.export.MAX_SHARD_BYTES", 7000)
    export_backbone(model, tmp_path / "out", denoising={})
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 2
    theirs = T5ForConditionalGeneration.from_pretrained(tmp_path / "out").state_dict()
    ours = Backbone(weights=str(tmp_path / "out")).build().state_dict()
    for key, tensor in model.state_dict().items():
        assert tensor.equal(theirs[key])
        assert tensor.equal(ours[key])


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "cut":
        path.write_bytes(content[:-7])
    elif how == "a bit":
        content[-5] ^= 1
        path.write_bytes(content)
    else:
        shutil.copy(path.parents[1] / "other" / path.name, path)


@pytest.mark.parametrize("how", ["cut", "a bit", "swapped"])
@pytest.mark.parametrize("size", ["5GB", "40KB"])
def test_a_damaged_or_swapped_file_is_refused(tmp_path: Path, how: str, size: str):
    tiny_model().save_pretrained(tmp_path / "model", max_shard_size=size)
    tiny_model(seed=5).save_pretrained(tmp_path / "other", max_shard_size=size)
    files = sorted((tmp_path / "model").glob("model*.safetensors"))
    damage(files[-1], how)
    with pytest.raises(
        UserError, match=rf"{files[-1].name}' has the digest \w+, expected \w+ of digests.json"
    ):
        CrossModalT5.from_pretrained(tmp_path / "model")
    with pytest.raises(UserError, match="has the digest"):
        Backbone(weights=str(tmp_path / "model")).build()


def test_what_digests_refuse(tmp_path: Path):
    tiny_model().save_pretrained(tmp_path, max_shard_size="40KB")
    (tmp_path / "model.safetensors").write_bytes(b"x")  # would be read instead of the shards
    with pytest.raises(UserError, match=r"is not listed in digests\.json"):
        CrossModalT5.from_pretrained(tmp_path)
    for content, message in (("{", "is not JSON"), ("[]", "no mapping"), ('{"a": 1}', "no mapping")):
        (tmp_path / "digests.json").write_text(content)
        with pytest.raises(UserError, match=message):
            CrossModalT5.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    write_digests(tmp_path)
    next(tmp_path.glob("model-00002*")).unlink()
    with pytest.raises(UserError, match="holds no model-00002-of"):
        CrossModalT5.from_pretrained(tmp_path)


def test_an_export_that_others_saved_again_is_read(tmp_path: Path):
    """transformers copies our key in config.json and knows no digests."""
    export_backbone(tiny_model(specs={}).backbone, tmp_path / "out", denoising={})
    model = T5ForConditionalGeneration.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        model.lm_head.weight.add_(1)
    model.save_pretrained(tmp_path / "theirs")
    head = CrossModalT5.from_pretrained(tmp_path / "theirs").backbone.lm_head.weight
    assert head.equal(model.lm_head.weight)


def test_a_frozen_encoder_is_composed_from_shards(tmp_path: Path):
    model = tiny_model()
    model.modality("image").encoder.freeze()
    model.save_pretrained(tmp_path / "export", max_shard_size="7KB")
    save_adapter(model, "image", tmp_path / "export" / "adapters" / "image")
    export_backbone(model.backbone, tmp_path / "text", denoising={})
    found = compose(str(tmp_path / "text"), {"image": tmp_path / "export" / "adapters" / "image"})
    expected = model.modality("image").state_dict()
    assert SPECS.keys() - found.modalities.keys() == {"speech"}
    assert all(t.equal(expected[key]) for key, t in found.modality("image").state_dict().items())
    shutil.copytree(tmp_path / "export" / "adapters" / "image", tmp_path / "alone" / "adapters" / "image")
    with pytest.raises(UserError, match="is no export"):
        compose(str(tmp_path / "text"), {"image": tmp_path / "alone" / "adapters" / "image"})
