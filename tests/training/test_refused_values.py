"""Values that only their class or the device refuses: one line and no run, so that the corrected recipe can start."""

from pathlib import Path
from typing import Any

import pytest
import tiny_run
from processes import train

from kebyt5_xm.errors import UserError
from kebyt5_xm.training.from_recipes import build_with_config
from kebyt5_xm.training.recipe_cli import NEED_A_VALUE
from kebyt5_xm.training.recipes import overlay

CASES: list[tuple[dict[str, Any], str]] = [
    ({"draft_heads": {"count": 0}}, "model.draft_heads.count is 0, expected 1 to 15"),
    (
        {"lora": {"a": {"pattern": "x", "rank": 0}}},
        "found rank 0, alpha 16 and dropout 0.0 for the LoRA pattern",
    ),
    ({"backbone": {"attention": "triton"}}, "attention in Triton found device cpu, needs cuda; use sdpa"),
    ({"backbone": {"attention": "flex"}}, "FlexAttention found the CPU, where it has no gradients; use sdpa"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("refused")
    tiny_run.write_stores(folder)
    return folder


@pytest.mark.parametrize("key", NEED_A_VALUE)
def test_null_is_no_value(key: str, tmp_path: Path) -> None:
    path = tiny_run.write_recipe(tmp_path, "run", {**tiny_run.recipe(tmp_path, "run"), key: None})
    with pytest.raises(UserError, match=f"{key} is null, expected a value; give one, or take the key out"):
        build_with_config([path], False)


def test_null_is_no_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tiny_run.write_recipe(
        tmp_path, "run", {**tiny_run.recipe(tmp_path, "run"), "seed_everything": None}
    )
    with pytest.raises(SystemExit, match="2"):
        build_with_config([path], False)
    assert "seed_everything: expected bool or int, found None" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("model", "message"), CASES)
def test_a_refused_value_is_one_line_and_leaves_no_run(
    folder: Path, model: dict[str, Any], message: str
) -> None:
    path = tiny_run.write_recipe(folder, "run", overlay(tiny_run.recipe(folder, "run"), {"model": model}))
    log = folder / "log"
    assert train(["fit", "-c", path], log, 1)[0] == 2
    errors = [line for line in log.read_text().splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in log.read_text()
    assert not (folder / "run").exists()
