"""Adapters trained separately on one frozen backbone answer together as each does alone."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_media
import tiny_run
from tiny_model import SPECS, tiny_model
from tiny_run import fit, log_of

from kebyt5_xm.commands import cli
from kebyt5_xm.commands.compose import parse_adapters
from kebyt5_xm.commands.export.export import export_run
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.backbone import Backbone, backbone_hash
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.runs.checkpoint_reading import checkpoint_step
from kebyt5_xm.model.runs.run import Run
from kebyt5_xm.training.recipes import overlay

TRUST = ["tiny_media"]


def image(folder: Path) -> dict[str, Any]:
    """A frozen encoder: its weights come with its class, so no adapter folder has them."""
    return tiny_media.image_overlay(folder, "tiny_media.PatchesWithStatistics", frozen=True)


def speech(folder: Path) -> dict[str, Any]:
    found = tiny_media.speech_overlay(folder)
    init_args = found["data"]["sources"]["speech"]["init_args"]
    init_args |= {"validation": init_args["path"], "max_validation_examples": 3}
    return found


def on_base(folder: Path, run: str, *overlays: dict[str, Any], **trainer: Any) -> dict[str, Any]:
    """A recipe of the overlays' sources alone, over the frozen backbone of the run `base`."""
    contents = tiny_run.recipe(folder, run, **{"max_steps": 6, **trainer})
    contents["data"]["sources"] = {}
    contents["model"] |= {"backbone": {"weights": str(folder / "base"), "frozen": True}, "schedule": None}
    for added in overlays:
        contents = overlay(contents, added)
    return contents


def validation(run: Run, source: str) -> float:
    return run.validation(checkpoint_step(run.checkpoint()))[1][source]["loss"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone, and an image and a speech adapter from runs of their own on it, exported."""
    folder = tmp_path_factory.mktemp("compose")
    tiny_run.write_stores(folder)
    tiny_media.write_media(folder)
    recipes = {
        "base": tiny_run.recipe(folder, "base"),
        "image": on_base(folder, "image", image(folder)),
        "speech": on_base(folder, "speech", speech(folder)),
    }
    for name, contents in recipes.items():
        assert fit(folder, name, contents) == [0], log_of(folder, name)
        export_run(Run(folder / name), folder / f"export-{name}", trusted_modules=TRUST)
    assert not (folder / "export-image" / "adapters" / "image" / "encoder.safetensors").exists()
    assert (folder / "export-speech" / "adapters" / "speech" / "encoder.safetensors").exists()
    return folder


def adapter(folder: Path, name: str) -> str:
    return str(folder / f"export-{name}" / "adapters" / name)


def together(folder: Path, run: str) -> dict[str, Any]:
    """Both adapters in one recipe that trains nothing: its rate is zero."""
    contents = on_base(folder, run, image(folder), speech(folder), max_steps=1, val_check_interval=1)
    for name, modality in contents["model"]["modalities"].items():
        modality["weights"] = adapter(folder, name)
    contents["model"]["optimizer"]["init_args"] |= {"lr": 0.0, "weight_decay": 0.0}
    return contents


@pytest.mark.slow
def test_both_keep_their_scores_in_one_recipe(folder: Path) -> None:
    assert fit(folder, "both", together(folder, "both")) == [0], log_of(folder, "both")
    both = Run(folder / "both")
    for run, source in (("image", "captions"), ("speech", "speech")):
        assert validation(both, source) == pytest.approx(validation(Run(folder / run), source), rel=1e-5)


@pytest.mark.slow
def test_another_backbone_is_refused_with_both_hashes(folder: Path, tmp_path: Path) -> None:
    best = checkpoint_step(Run(folder / "base").checkpoint())
    other = str(folder / "base" / "checkpoints" / f"step={6 if best == 7 else 7}.ckpt")
    hashes = [backbone_hash(Backbone(weights=str(weights)).build()) for weights in (folder / "base", other)]
    assert hashes[0] != hashes[1]
    contents = together(folder, "refused")
    contents["model"]["backbone"]["weights"] = other
    assert fit(folder, "refused", contents) == [2]
    assert all(found in log_of(folder, "refused") for found in hashes)
    with pytest.raises(UserError, match=f"(?s){hashes[0]}.*{hashes[1]}"):
        cli.run("compose", [other, "--adapter", adapter(folder, "speech"), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["base", "export-base", "export-speech"])
def test_one_model_without_training(folder: Path, tmp_path: Path, backbone: str, capsys: Any) -> None:
    out = tmp_path / "out"
    arguments = [f"--adapter={adapter(folder, 'image')}", f"--adapter=voice={adapter(folder, 'speech')}"]
    cli.run("compose", [str(folder / backbone), *arguments, "--out", str(out), "--trust", "tiny_media"])
    composed = CrossModalT5.from_pretrained(out, trusted_modules=TRUST)
    assert list(composed.modalities) == ["image", "voice"]
    for name, own, file in (("image", "image", "3.png"), ("voice", "speech", "5.wav")):
        alone = CrossModalT5.from_pretrained(folder / f"export-{own}", trusted_modules=TRUST)
        expected = alone.answer([folder / file, " 설명: "], max_new_tokens=11)
        assert composed.answer([(name, folder / file), " 설명: "], max_new_tokens=11) == expected
        theirs = alone.modality(own).state_dict()
        assert all(theirs[key].equal(t) for key, t in composed.modality(name).state_dict().items())
    capsys.readouterr()
    given = ["--image", str(folder / "3.png"), "--trust", "tiny_media", "--max-length", "5"]
    cli.run("generate", [str(out), *given])
    assert capsys.readouterr().out
    card = (out / "README.md").read_text()
    assert "| voice | audio |" in card
    assert not re.search(r"None|/tmp", card)
    again = [f"--adapter={out / 'adapters' / name}" for name in ("image", "voice")]
    cli.run("compose", [str(out), *again, "--out", str(tmp_path / "again"), "--trust", "tiny_media"])
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_what_cannot_be_composed_is_refused(folder: Path, tmp_path: Path) -> None:
    def compose(*adapters: str) -> None:
        arguments = [f"--adapter={path}" for path in adapters]
        trust = ["--trust", "tiny_media"]
        cli.run("compose", [str(folder / "base"), *arguments, "--out", str(tmp_path / "out"), *trust])

    with pytest.raises(UserError, match=r"both of the modality 'speech'.*--adapter speech2="):
        compose(adapter(folder, "speech"), adapter(folder, "speech"))
    shutil.copytree(adapter(folder, "image"), tmp_path / "alone")
    with pytest.raises(UserError, match="was frozen, so its weights are in the export around it"):
        compose(str(tmp_path / "alone"))
    with pytest.raises(UserError, match=r"expected one of its folders adapters/\{image\}"):
        compose(str(folder / "export-image"))
    content = (tmp_path / "alone" / "adapter.json").read_text().replace('"shared"', '"zero"')
    (tmp_path / "alone" / "adapter.json").write_text(content)
    with pytest.raises(UserError, match=r"different model.slot_bias \(image: zero, speech: shared\)"):
        compose(str(tmp_path / "alone"), adapter(folder, "speech"))


# -- bad input: no weights are read, so a folder of adapter.json alone will do ----------------------------------

CONTENT = {
    "modality": "speech",
    "encoder": {"class_path": "encoders.stems.LogMelEncoder"},
    "adapter": {"class_path": "kebyt5_xm.adapters.Linear"},
    "in_dim": 13,
    "d_model": 29,
    "slot_bias": "shared",
    "backbone_hash": "0" * 64,
    "backbone_dtype": "float32",
}


def write_content(folder: Path, **changed: Any) -> Path:
    (folder / "adapter.json").write_text(json.dumps(CONTENT | changed), encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", ["a.b", "a/b", "../../elsewhere", "/tmp/elsewhere", "", "keys", "training"])
@pytest.mark.parametrize("given", ["by the user", "by the folder"])
def test_a_name_that_no_modality_may_have_is_refused(tmp_path: Path, name: str, given: str) -> None:
    by_user = given == "by the user"
    folder = write_content(tmp_path, **({} if by_user else {"modality": name}))
    with pytest.raises(UserError, match=f"found the modality '{re.escape(name)}'"):
        parse_adapters([f"{name}={folder}" if by_user else str(folder)])


@pytest.mark.parametrize("name", ["image", "사진", "photo-2", "voice_ko"])
def test_names_that_a_modality_may_have(tmp_path: Path, name: str) -> None:
    assert parse_adapters([f"{name}={write_content(tmp_path)}"]) == {name: tmp_path}


def test_a_model_refuses_such_a_name_whatever_it_comes_from() -> None:
    with pytest.raises(UserError, match=r"'a\.b', expected a name of letters"):
        tiny_model({"a.b": SPECS["image"]})


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (b"{", "is not JSON"),
        (b"\xff\xfe{}", "is not JSON"),
        (b"[]", "holds a list, expected a mapping"),
        (b"{}", "lacks modality, encoder"),
        ({"backbone_dtype": "float33"}, "says backbone_dtype 'float33'"),
        ({"backbone_dtype": "nn"}, "says backbone_dtype 'nn'"),
        ({"slot_bias": "nought"}, "says slot_bias 'nought', expected shared or zero"),
    ],
)
def test_a_damaged_folder_of_an_adapter_is_refused(tmp_path: Path, written: Any, words: str) -> None:
    if isinstance(written, bytes):
        (tmp_path / "adapter.json").write_bytes(written)
    else:
        write_content(tmp_path, **written)
    with pytest.raises(UserError, match=words):
        parse_adapters([str(tmp_path)])
