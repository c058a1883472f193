"""Runs with augmentation: exact on resume with other data workers, compared on resume, refused in one line."""

import signal
from pathlib import Path
from typing import Any

import pytest
import tiny_media
import tiny_run
from tiny_run import fit, log_of, train_losses

from kebyt5_xm.errors import UserError
from kebyt5_xm.model.runs.run import Run, backbone_tensors
from kebyt5_xm.training import recipe_check, signatures
from kebyt5_xm.training.recipes import overlay

OURS = "kebyt5_xm.data.augmentation"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("augmented-runs")
    tiny_run.write_stores(folder)
    tiny_media.write_media(folder)
    return folder


def recipe(folder: Path, run: str, workers: int, **trainer: Any) -> dict[str, Any]:
    """Images, recordings and texts, all augmented, in packed rows."""
    noise = {"manifest": str(folder / "speech.jsonl"), "column": "recording"}
    augment = {
        "captions": {
            "image": [
                {"class_path": "torchvision.transforms.v2.RandomAffine", "init_args": {"degrees": 20}},
                {"class_path": f"{OURS}.Crop"},
            ],
            "caption": [{"class_path": f"{OURS}.Perturb", "init_args": {"name": "jamo", "strength": 0.7}}],
        },
        "speech": {
            "speech": [
                {"class_path": f"{OURS}.Speed", "init_args": {"factors": [0.8, 1.0, 1.3]}},
                {"class_path": f"{OURS}.Noise", "init_args": noise},
                {"class_path": f"{OURS}.SpecAugment"},
            ]
        },
    }
    images, speech = tiny_media.image_overlay(folder), tiny_media.speech_overlay(folder)
    contents = overlay(overlay(tiny_run.recipe(folder, run, **trainer), images), speech)
    sources = contents["data"]["sources"]
    sources["captions"]["init_args"]["prompt"] = "{picture:image} {caption}: "
    for name, settings in augment.items():
        sources[name]["init_args"] |= {"augment": settings, "weight": 3.0}
    del contents["data"]["global_batch_size"]
    contents["data"] |= {
        "num_workers": workers,
        "budget": {"global_length": 732, "micro_length": 366, "packed_length": 122},
    }
    contents["model"]["backbone"]["dropout"] = 0.1
    return contents


@pytest.mark.slow
def test_killed_and_continued_with_other_workers_is_bit_identical(folder: Path) -> None:
    assert fit(folder, "whole", recipe(folder, "whole", 0)) == [0], log_of(folder, "whole")
    assert not (folder / "whole" / "skipped.jsonl").exists(), "every promised length was kept"
    kill = {"class_path": "killing.KillAfter", "init_args": {"micro_batch": 9}}
    assert fit(folder, "killed", recipe(folder, "killed", 1, callbacks=[kill])) == [-signal.SIGKILL]
    resumed = recipe(folder, "killed", 2)
    assert fit(folder, "killed", resumed, "--ckpt_path", "last") == [0], log_of(folder, "killed")
    assert train_losses(folder / "killed") == train_losses(folder / "whole")
    whole, continued = (backbone_tensors(Run(folder / run).last) for run in ("whole", "killed"))
    assert all(continued[key].equal(whole[key]) for key in whole)

    changed = recipe(folder, "killed", 0, max_steps=tiny_run.STEPS + 2)
    crop = changed["data"]["sources"]["captions"]["init_args"]["augment"]["image"][1]
    crop["init_args"] = {"scale": [0.4, 1.0]}
    assert fit(folder, "changed", changed, "--ckpt_path", "last") == [2]
    log = log_of(folder, "changed")
    assert "the checkpoint was trained on other data: captions.augment" in log
    assert "scale=[0.4, 1.0]" in log


@pytest.mark.slow
@pytest.mark.parametrize(
    ("image", "words"),
    [
        (
            [{"class_path": "torchvision.transforms.v2.Resize", "init_args": {"size": 8}}],
            ["data.sources.captions: augment.image: ", "expected the same size", "augmentation.Crop"],
        ),
        (
            [{"class_path": f"{OURS}.Crop", "init_args": {"probability": 2}}],
            ["Crop has the probability 2"],
        ),
        (
            [{"class_path": "torch.optim.AdamW"}],
            ["augment", "AdamW"],
        ),
        (
            [{"class_path": f"{OURS}.Crops"}],
            ["captions.init_args.augment", "augmentation.Crops", "did you mean 'Crop'?"],
        ),
        (
            [{"class_path": f"{OURS}.Crop", "init_args": {"scales": [0.5, 1.0]}}],
            ["captions.init_args.augment.image.0.init_args.scales", "did you mean 'scale'?"],
        ),
    ],
)
def test_refused_before_training(folder: Path, image: list[dict[str, Any]], words: list[str]) -> None:
    contents = recipe(folder, "refused", 0)
    contents["data"]["sources"]["captions"]["init_args"]["augment"] = {"image": image}
    assert fit(folder, "refused", contents) == [2]
    log = log_of(folder, "refused")
    (error,) = [line for line in log.splitlines() if line.startswith("error: ")]
    assert all(word in error for word in words), error
    assert "Traceback" not in log


def test_a_library_that_is_not_installed_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = signatures.Missing("No module named 'torchvision'")
    monkeypatch.setattr(
        signatures, "find_missing", lambda path: missing if path.startswith("torchvision.") else None
    )
    path = tiny_run.write_recipe(tmp_path, "recipe", recipe(tmp_path, "run", 0))
    with pytest.raises(
        UserError, match=r"No module named 'torchvision'; run: pip install 'kebyt5-xm\[image\]'"
    ):
        recipe_check.check([path])
