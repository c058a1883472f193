"""Fine-tuning runs: LoRA on one rank and two, resumed, exported merged and apart; layer-wise rates."""

import argparse
import re
from pathlib import Path
from typing import Any

import pytest
import tiny_media
import tiny_run
import torch
from exported import load_with_5
from tiny_run import STRATEGIES, fit, log_of, losses, tensors, train_losses

from kebyt5_xm.commands.export import export
from kebyt5_xm.commands.export.export import export_run
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.adapter_folder import read_content
from kebyt5_xm.model.backbone import Backbone, backbone_hash
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.lora import LORA_SUFFIXES
from kebyt5_xm.model.runs.run import Run, backbone_tensors
from kebyt5_xm.training.recipes import overlay

LORA = {
    "attention": {"pattern": "backbone.*Attention.[qv]", "rank": 3, "alpha": 5, "dropout": 0.1},
    "feed_forward": {"pattern": "backbone.decoder.*.wo", "rank": 2, "alpha": 7},
}


def recipe(folder: Path, run: str, **trainer: Any) -> dict[str, Any]:
    contents = tiny_run.recipe(folder, run, **trainer)
    contents["model"] |= {
        "backbone": {"weights": str(folder / "base")},
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.05}},
        "schedule": None,
        "lora": LORA,
        "groups": {"norms": {"pattern": "backbone.decoder.*layer_norm*", "frozen": False, "lr": 0.01}},
    }
    return contents


def without_dropout(contents: dict[str, Any]) -> dict[str, Any]:
    contents["model"]["lora"] = {n: {**e, "dropout": 0.0} for n, e in LORA.items()}
    return contents


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone, and a LoRA run on it."""
    folder = tmp_path_factory.mktemp("tuning")
    tiny_run.write_stores(folder)
    tiny_media.write_media(folder)
    assert fit(folder, "base", tiny_run.recipe(folder, "base")) == [0], log_of(folder, "base")
    assert fit(folder, "lora", recipe(folder, "lora")) == [0], log_of(folder, "lora")
    return folder


@pytest.mark.slow
def test_a_checkpoint_has_the_keys_of_the_backbone_and_of_lora(folder: Path) -> None:
    base, run = tensors(Run(folder / "base").last), tensors(Run(folder / "lora").last)
    assert [key for key in run if not key.endswith(LORA_SUFFIXES)] == list(base)
    start = tensors(Run(folder / "base").checkpoint())
    changed = {key for key in base if not run[key].equal(start[key])}
    assert changed == {key for key in base if "decoder" in key and "layer_norm" in key}
    assert all(tensor.any() for key, tensor in run.items() if key.endswith(LORA_SUFFIXES))


@pytest.mark.slow
def test_trainable_parameters_and_memory_are_printed_and_recorded(folder: Path) -> None:
    log = (folder / "lora.log").read_text()
    found = Run(folder / "lora").results()
    trainable, total = found["trainable_parameters"], found["parameters"]
    assert f"{trainable / total:.2%} of {total:,} train" in log
    for kind, size in {"weights": 4 * total, "gradients": 4 * trainable}.items():
        assert f"{kind} {size / 1e3:.0f} kB" in log
    assert "not counted: activations" in log
    assert 0.1 < found["peak_memory_gb"] < 20
    assert "resident" in found["peak_memory_of"]
    assert found["device_hours"] == pytest.approx(found["train_seconds"] / 3600, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", STRATEGIES)
def test_two_ranks_equal_one(folder: Path, name: str) -> None:
    if not (folder / "single").exists():
        assert fit(folder, "single", without_dropout(recipe(folder, "single"))) == [0]
    contents = without_dropout(recipe(folder, name, strategy=STRATEGIES[name], devices=2))
    assert fit(folder, name, contents, ranks=2) == [0, 0], log_of(folder, name)
    single, other = Run(folder / "single"), Run(folder / name)
    assert losses(other) == pytest.approx(losses(single), rel=1e-5)
    expected, found = tensors(single.last), tensors(other.last)
    assert found.keys() == expected.keys()
    for key, tensor in backbone_tensors(other.last).items():
        assert tensor.numpy() == pytest.approx(backbone_tensors(single.last)[key].numpy(), rel=1e-3, abs=1e-4)


@pytest.mark.slow
def test_stopped_and_continued_is_bit_identical(folder: Path) -> None:
    assert fit(folder, "parts", recipe(folder, "parts", max_steps=4)) == [0], log_of(folder, "parts")
    again = recipe(folder, "parts")
    assert fit(folder, "parts", again, "--ckpt_path", "last") == [0], log_of(folder, "parts")
    assert train_losses(folder / "parts") == train_losses(folder / "lora")
    whole, continued = (tensors(Run(folder / run).last) for run in ("lora", "parts"))
    assert all(continued[key].equal(whole[key]) for key in whole)


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"
)  # peft asks for it
def test_merged_and_apart_give_the_same_logits(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import PeftModel
    from transformers import T5ForConditionalGeneration

    merged, apart = tmp_path / "merged", tmp_path / "apart"
    run = Run(folder / "lora")
    export_run(run, merged)
    parser = argparse.ArgumentParser()
    export.add_arguments(parser)
    export.run(parser.parse_args([str(folder / "lora"), "--out", str(apart), "--lora", "apart"]))
    one, base = load_with_5(merged, apart)
    assert not one["problems"] + base["problems"]
    ids = torch.tensor(one["ids"])
    plain = T5ForConditionalGeneration.from_pretrained(apart)
    with_lora = PeftModel.from_pretrained(plain, apart / "lora").eval()
    logits = with_lora(input_ids=ids, decoder_input_ids=ids[:, :5]).logits
    torch.testing.assert_close(logits, torch.tensor(one["logits"]), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(torch.tensor(base["logits"]), logits, atol=1e-2)
    card = (apart / "README.md").read_text()
    assert "the weights of this folder alone are not the model that was evaluated" in card
    asked: list[torch.Tensor] = []

    def generate(self: T5ForConditionalGeneration, input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        asked.append(self(input_ids=input_ids, decoder_input_ids=ids[:, :5]).logits)
        return torch.tensor([[0, 1]])

    monkeypatch.setattr(T5ForConditionalGeneration, "generate", generate)
    for folder_of_model in (apart, merged):
        found = re.findall(r"```python\n(.*?)```", (folder_of_model / "README.md").read_text(), re.DOTALL)
        exec(
            found[0].replace('folder = "."', f"folder = {str(folder_of_model)!r}"), {"print": lambda _: None}
        )
    torch.testing.assert_close(
        asked[0], asked[1], rtol=1e-4, atol=1e-4
    )  # the code of both cards runs one model

    expected = backbone_hash(Backbone(weights=str(merged)).build())
    assert (
        backbone_hash(Backbone(weights=str(folder / "lora")).build()) == expected
    )  # stage two starts merged
    with pytest.raises(UserError, match="exported with --lora apart"):
        CrossModalT5.from_pretrained(apart)
    with pytest.raises(UserError, match=r"has no model\.lora"):
        export_run(Run(folder / "base"), tmp_path / "none", lora_apart=True)


@pytest.mark.slow
def test_lora_in_a_frozen_encoder_and_in_the_backbone_of_a_cross_modal_run(
    folder: Path, tmp_path: Path
) -> None:
    """The exported adapter is bound to the merged backbone, and holds the merged encoder."""
    encoder = tiny_media.image_overlay(folder, "tiny_media.PatchesWithStatistics", frozen=True)
    contents = overlay(recipe(folder, "sees"), encoder)
    contents["model"]["lora"] = {**LORA, "patches": {"pattern": "modalities.image.encoder.*", "rank": 2}}
    assert fit(folder, "sees", contents) == [0], log_of(folder, "sees")
    run = Run(folder / "sees")
    export_run(run, tmp_path / "out", trusted_modules=["tiny_media"])
    model = CrossModalT5.from_pretrained(tmp_path / "out", trusted_modules=["tiny_media"])
    adapter = tmp_path / "out" / "adapters" / "image"
    assert read_content(adapter)["backbone_hash"] == backbone_hash(model.backbone)
    trained = tensors(run.checkpoint())
    key = "modalities.image.encoder.mlp.0.weight"
    before = tiny_media.PatchesWithStatistics().state_dict()["mlp.0.weight"]
    assert trained[f"model.{key}"].equal(before)
    assert not model.state_dict()[key].equal(before)
    with pytest.raises(UserError, match="has modalities"):
        export_run(run, tmp_path / "apart", lora_apart=True)

    contents = overlay(tiny_run.recipe(folder, "next", max_steps=1), encoder)
    contents["model"] |= {"backbone": {"weights": str(folder / "sees"), "frozen": True}, "schedule": None}
    contents["model"]["modalities"]["image"]["weights"] = str(adapter)
    assert fit(folder, "next", contents) == [0], log_of(folder, "next")
    assert tensors(Run(folder / "next").last)[f"model.{key}"].equal(model.state_dict()[key])


@pytest.mark.slow
def test_layer_wise_rates_are_logged(folder: Path) -> None:
    contents = tiny_run.recipe(folder, "layers", max_steps=1)
    contents["model"] |= {"schedule": None}
    contents["model"]["groups"] = {"reader": {"pattern": "backbone.encoder.*", "layer_decay": 0.5}}
    assert fit(folder, "layers", contents) == [0], log_of(folder, "layers")
    rates = {row["metric"]: row["value"] for row in Run(folder / "layers").metrics()}
    assert rates["lr/reader/encoder.block.0"] == pytest.approx(0.0015)
    assert rates["lr/reader/encoder.block.1"] == rates["lr/default"] == rates["lr/reader"] == 0.003
    assert "reader/encoder.block.0" in (folder / "layers.log").read_text()
