"""The doctor finds nothing in a healthy configuration, and the fault in each broken one."""

from pathlib import Path
from typing import Any

import pytest
import tiny_media
import tiny_run

from kebyt5_xm import cli
from kebyt5_xm.doctor.costs import optimizer_bytes
from kebyt5_xm.doctor.flops import step_flops
from kebyt5_xm.recipes import overlay
from kebyt5_xm.untied import t5_config

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Lightning's calls of jsonargparse
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("doctor")
    tiny_run.write_stores(folder)
    tiny_media.write_media(folder)
    tiny_run.write_recipe(folder, "text", tiny_run.recipe(folder, "unused"))
    return folder


@pytest.fixture
def doctor(folder: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return a function overlays -> (exit code, check -> its lines)."""

    def examine(*overlays: dict[str, Any], options: tuple[str, ...] = ()) -> tuple[int, dict[str, str]]:
        paths = [str(folder / "text.yaml")]
        paths += [tiny_run.write_recipe(folder, f"overlay{n}", added) for n, added in enumerate(overlays)]
        args = [word for path in paths for word in ("-c", path)]
        code = 0
        try:
            cli.main(["doctor", *args, *options])
        except SystemExit as error:
            code = int(error.code or 0)
        captured = capsys.readouterr()
        found: dict[str, str] = {}
        for line in captured.out.splitlines():
            if line[:1] not in ("", " "):
                check = line.split("  ")[0]
                found[check] = ""
            if found:
                found[check] += line.removeprefix(check).strip() + " "
        return code, found | ({"error": captured.err} if code == 2 else {})

    return examine


def status(lines: dict[str, str]) -> dict[str, str]:
    return {check: text.split()[0] for check, text in lines.items()}


def failed(lines: dict[str, str]) -> set[str]:
    return {check for check, found in status(lines).items() if found == "FAILED"}


def test_a_healthy_configuration(doctor: Any, folder: Path) -> None:
    code, lines = doctor(tiny_media.image_overlay(folder, frozen=True), tiny_media.speech_overlay(folder))
    assert code == 0, lines
    assert set(status(lines).values()) == {"ok"}
    per_modality = ("slot counts", "padding", "batch of 2", "scale")
    model = ("batch of 6", "padding", "gradients")
    expected = {f"{name}: {check}" for name in ("image", "speech") for check in per_modality}
    expected |= {f"model: {check}" for check in model} | {"estimate: memory", "estimate: time a step"}
    expected |= {f"{source}: lengths" for source in ("text", "captions", "speech")}
    expected |= {"what trains", "image: cache"}
    assert lines.keys() == expected
    assert "longest input 61 positions" in lines["text: lengths"]
    assert "most slots 4" in lines["captions: lengths"]


def test_text_alone_has_no_lines_of_modalities(doctor: Any) -> None:
    code, lines = doctor()
    assert code == 0, lines
    assert {check.split(":")[0] for check in lines} == {"what trains", "text", "model", "estimate"}


def test_an_encoder_that_lies_about_its_length(doctor: Any, folder: Path) -> None:
    code, lines = doctor(tiny_media.image_overlay(folder, "tiny_media.LyingPatches"))
    assert code == 1
    assert failed(lines) == {"image: slot counts", "model: real samples"}
    assert "promise [6, 6, 6] slots, encoder and adapter make [4, 4, 4]" in lines["image: slot counts"]
    assert "model.modalities.image.encoder" in lines["image: slot counts"]


def test_an_encoder_that_leaks_padding(doctor: Any, folder: Path) -> None:
    code, lines = doctor(tiny_media.speech_overlay(folder, "tiny_media.LeakingFrames"))
    assert code == 1
    assert failed(lines) == {"speech: padding", "model: batch of 4"}
    assert "LeakingFrames" in lines["speech: padding"]


def test_lora_is_told_and_counts_as_reached(doctor: Any) -> None:
    code, lines = doctor({"model": {"lora": {"values": {"pattern": "backbone.*.v", "rank": 2}}}})
    assert code == 0, lines
    assert "LoRA: values" in lines["what trains"]
    assert "each gets what it should" in lines["model: gradients"]


def test_nothing_trains(doctor: Any) -> None:
    code, lines = doctor({"model": {"backbone": {"frozen": True}}})
    assert code == 1
    assert failed(lines) == {"what trains", "model: gradients"}
    assert "model.backbone.frozen" in lines["model: gradients"]


def test_a_pattern_that_matches_nothing_and_a_weight_that_nothing_reaches(doctor: Any, folder: Path) -> None:
    added = tiny_media.image_overlay(folder, "tiny_media.PatchesWithDeadWeight")
    code, lines = doctor(overlay(added, {"model": {"groups": {"slow": {"pattern": "modalities.imge.*"}}}}))
    assert code == 1
    assert failed(lines) == {"what trains", "model: gradients"}
    assert "model.groups.slow" in lines["what trains"]
    assert "no gradient reaches modalities.image.encoder.dead" in lines["model: gradients"]


def test_rows_that_are_too_long_are_told_with_their_line(doctor: Any, folder: Path) -> None:
    limit = {"data": {"sources": {"captions": {"init_args": {"max_target_length": len("그림 7".encode())}}}}}
    code, lines = doctor(overlay(tiny_media.image_overlay(folder), limit))
    assert code == 1
    assert failed(lines) == {"captions: lengths"}
    assert "of 13 examples 10 can be used" in lines["captions: lengths"]
    assert "line 11" in lines["captions: lengths"]
    assert "data.sources.captions.init_args" in lines["captions: lengths"]


def test_weights_that_are_not_there(doctor: Any, folder: Path) -> None:
    """Wrong input without the option; with it, random weights of the shape in config.json."""
    run = folder / "no-such-run"
    absent = {"model": {"backbone": {"shape": None, "weights": str(run)}}}
    code, lines = doctor(absent)
    assert code == 2
    assert "no-such-run" in lines["error"]
    code, lines = doctor(absent, options=("--random-weights",))
    assert code == 2
    assert "model.backbone.size" in lines["error"]
    run.mkdir()
    shape = tiny_run.recipe(folder, "unused")["model"]["backbone"]["shape"]
    t5_config({**shape, "vocab_size": 384, "feed_forward_proj": "gated-gelu"}).save_pretrained(run)
    code, lines = doctor(absent)
    assert code == 2
    assert "--random-weights" in lines["error"]
    code, lines = doctor(absent, options=("--random-weights",))
    assert code == 0, lines


def test_estimates() -> None:
    import torch

    base = {"d_model": 1536, "d_kv": 64, "d_ff": 3968, "num_heads": 12, "num_layers": 18}
    config = t5_config({**base, "num_decoder_layers": 6, "vocab_size": 384})
    assert step_flops(config, 1024, 189) == pytest.approx(2.99e12, rel=2e-3)
    assert optimizer_bytes(lambda groups: torch.optim.AdamW(groups, lr=0.1)) == 8
    assert optimizer_bytes(lambda groups: torch.optim.SGD(groups, lr=0.1)) == 0
