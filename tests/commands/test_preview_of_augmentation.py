"""`kebyt5-xm preview` shows examples as training augments them, with the plain ones; `lint` reads the plain ones."""

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_media
import tiny_run
import yaml
from PIL import Image

from kebyt5_xm.commands import cli
from kebyt5_xm.training.from_recipes import build_task
from kebyt5_xm.training.recipes import overlay

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Lightning's calls of jsonargparse
OURS = "kebyt5_xm.data.augmentation"
AUGMENT: dict[str, Any] = {
    "captions": {
        "image": [{"class_path": "torchvision.transforms.v2.RandomInvert", "init_args": {"p": 1.0}}],
        "caption": [
            {
                "class_path": f"{OURS}.Perturb",
                "init_args": {"name": "missing_spaces", "strength": 1.0, "probability": 1.0},
            }
        ],
    },
    "speech": {"speech": [{"class_path": f"{OURS}.Speed", "init_args": {"factors": [0.5]}}]},
}


def recipe(folder: Path, name: str, is_augmented: bool) -> str:
    images, speech = tiny_media.image_overlay(folder), tiny_media.speech_overlay(folder)
    contents = overlay(overlay(tiny_run.recipe(folder, "run"), images), speech)
    sources = contents["data"]["sources"]
    sources["captions"]["init_args"]["prompt"] = "{picture:image} {caption}: "
    if is_augmented:
        for source, augment in AUGMENT.items():
            sources[source]["init_args"]["augment"] = augment
    return tiny_run.write_recipe(folder, name, contents)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_run.write_stores(tmp_path)
    tiny_media.write_media(tmp_path)
    return tmp_path


def pixels(url: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url)))).astype(int)


def test_the_preview_shows_both(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = recipe(folder, "augmented", True), folder / "page.html"
    cli.run("preview", ["-c", path, "-n", "5", "--source", "captions", "--out", str(out)])
    page = out.read_text(encoding="utf-8")
    found = re.findall(r'src="data:image/png;base64,([^"]+)" alt="([^,"]+)', page)
    assert [caption for _, caption in found] == ["without augmentation", "prepared: 3 x 16 x 16"] * 5
    for (plain, _), (inverted, _) in zip(found[::2], found[1::2], strict=True):
        # Scaling to 16 x 16 rounds, before and after the inversion.
        assert np.abs(pixels(plain) + pixels(inverted) - 255).max() <= 3
    assert page.count("<dt>input without augmentation</dt>") == 5
    assert re.search(r"slots</mark> 그림\d+: <mark", page)
    assert re.search(r"slots</mark> 그림 \d+: <mark", page)

    cli.run("preview", ["-c", path, "-n", "2", "--source", "speech", "--out", str(out)])
    page = out.read_text(encoding="utf-8")
    assert "<dt>input without augmentation</dt>" not in page, "the slots alone differ"
    lengths = [int(n) for n in re.findall(r"recording: (\d+) samples", page)]
    assert len(lengths) == 2
    assert all((length // 2 - 997) % 211 == 0 for length in lengths), "played at half speed"
    capsys.readouterr()
    reports = []
    for is_augmented in (False, True):
        cli.run("lint", ["-c", recipe(folder, "linted", is_augmented)])
        reports.append(capsys.readouterr().out)
    assert reports[0] == reports[1]


def test_a_runs_recipe_may_name_changes_of_images_alone(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A recipe in a run's folder may come from a stranger."""
    (folder / "checkpoints").mkdir()
    path = folder / "config.yaml"
    path.write_text(Path(recipe(folder, "augmented", True)).read_text(encoding="utf-8"), encoding="utf-8")
    _, data = build_task([str(path)], True)
    assert data.sources["captions"].changes(0, 0) is not None
    contents = yaml.safe_load(path.read_text(encoding="utf-8"))
    for class_path in ("torchvision.models.ResNet", "torchvision.transforms.Compose"):
        image = {"image": [{"class_path": class_path}]}
        contents["data"]["sources"]["captions"]["init_args"]["augment"] = image
        path.write_text(yaml.safe_dump(contents), encoding="utf-8")
        with pytest.raises(Exception, match="is not trusted, so it was not imported"):
            build_task([str(path)], True)
    capsys.readouterr()
