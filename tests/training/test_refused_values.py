"""Values that only their class or the device refuses: one line and no run, so that the corrected recipe can start."""

from pathlib import Path
from typing import Any

import pytest
import tiny_run
from processes import train

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
