"""The doctor finds nothing in a healthy configuration, and the fault in each broken one."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_media
import tiny_run

from kebyt5_xm.commands import cli
from kebyt5_xm.commands.doctor.examination import _world_size as ranks
from kebyt5_xm.model.flops import step_flops
from kebyt5_xm.model.t5 import t5_config
from kebyt5_xm.training import cli as training
from kebyt5_xm.training.memory import optimizer_bytes
from kebyt5_xm.training.recipes import overlay

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Lightning's calls of jsonargparse
]


ADVICE = ("advice: rate", "advice: steps", "advice: padding")


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
    assert set(status(lines).values()) <= {"ok", "WARNING"}  # the texts pad the captions
    per_modality = ("slot counts", "padding", "batch of 2", "scale")
    model = ("batch of 6", "padding", "gradients")
    expected = {f"{name}: {check}" for name in ("image", "speech") for check in per_modality}
    expected |= {f"model: {check}" for check in model} | {"estimate: memory", "estimate: time a step"}
    expected |= {f"{source}: lengths" for source in ("text", "captions", "speech")}
    expected |= {"what trains", "optimizer", "image: cache", *ADVICE}
    assert lines.keys() == expected
    assert "longest input 61 positions" in lines["text: lengths"]
    assert "most slots 4" in lines["captions: lengths"]


def test_text_alone_has_no_lines_of_modalities(doctor: Any) -> None:
    code, lines = doctor()
    assert code == 0, lines
    assert {check.split(":")[0] for check in lines} == {
        "what trains",
        "optimizer",
        "text",
        "model",
        "advice",
        "estimate",
    }


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
    assert "gradients reach exactly these" in lines["model: gradients"]


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
    matrix = torch.nn.Parameter(torch.ones(64, 64))
    assert optimizer_bytes([matrix], lambda groups: torch.optim.AdamW(groups, lr=0.1)) == 8 * 64 * 64
    assert optimizer_bytes([matrix], lambda groups: torch.optim.SGD(groups, lr=0.1)) == 0


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"data": {"micro_batch_size": 0}}, "data.micro_batch_size is 0"),
        ({"data": {"micro_batch_size": -1}}, "data.micro_batch_size is -1"),
        ({"data": {"micro_batch_size": 16}}, "8 is not a multiple of data.micro_batch_size 16 x 1 ranks"),
        ({"data": {"global_batch_size": 50, "micro_batch_size": 48}}, "50 is not a multiple"),
        ({"data": {"global_batch_size": 0}}, "data.global_batch_size 0"),
        ({"data": {"global_batch_size": -4}}, "data.global_batch_size -4"),
        ({"trainer": {"max_steps": -1}}, "trainer.max_steps is -1"),
        ({"trainer": {"max_epochs": 3}}, "trainer.max_epochs 3"),
        ({"trainer": {"accumulate_grad_batches": 2}}, "trainer.accumulate_grad_batches is 2"),
        (
            {"data": {"sources": {"text": {"init_args": {"epochs": 1}}}}, "trainer": {"max_steps": 9973}},
            "whole steps",
        ),
        ({"monitor": "val/bits_per_bite"}, "did you mean 'val/bits_per_byte'"),
    ],
)
def test_what_fit_refuses_is_refused_in_its_words(
    doctor: Any, folder: Path, changed: dict[str, Any], words: str
) -> None:
    code, lines = doctor(changed)
    assert code == 2, lines
    assert words in lines["error"]
    assert "Traceback" not in lines["error"]
    run = str(folder / "refused")
    paths = [str(folder / "text.yaml"), tiny_run.write_recipe(folder, "overlay0", changed)]
    with pytest.raises(SystemExit) as ended:
        training.main(["fit", *(word for path in paths for word in ("-c", path)), "--run_dir", run])
    assert ended.value.code == 2
    assert not Path(run, "config.yaml").exists()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"schedule": {"init_args": {"warmup_steps": 97}}}, "warmup_steps=97 in a run of 7 optimizer steps"),
        ({"optimizer": {"init_args": {"lr": 20.0}}}, "a learning rate of 20 in the group 'default'"),
        ({"optimizer": {"init_args": {"lr": -0.5}}}, "Invalid learning rate: -0.5"),
        ({"groups": {"fast": {"pattern": "*", "lr": 3.0}}}, "a learning rate of 3 in the group 'fast'"),
    ],
)
def test_an_optimizer_or_schedule_that_fit_refuses(
    doctor: Any, folder: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, Any], words: str
) -> None:
    code, lines = doctor({"model": changed})
    assert code == 1, lines
    assert failed(lines) == {"optimizer"}
    assert words in lines["optimizer"]
    paths = [str(folder / "text.yaml"), tiny_run.write_recipe(folder, "overlay0", {"model": changed})]
    with pytest.raises(SystemExit) as ended:
        training.main(
            ["fit", *(word for path in paths for word in ("-c", path)), "--run_dir", str(folder / "rate")]
        )
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
    shutil.rmtree(folder / "rate", ignore_errors=True)


def test_the_advice_on_a_cache_counts_the_passes_over_its_media(doctor: Any, folder: Path) -> None:
    """13 images of weight 0.3 beside text of weight 1, 7 steps of 8: they come round once."""
    overlay_of_images = tiny_media.image_overlay(folder, frozen=True)
    code, lines = doctor(overlay_of_images)
    assert code == 0, lines
    passes = 7 * 8 * 0.3 / 1.3 / 13
    assert f"come round {passes:.3g} times" in lines["image: cache"]
    code, lines = doctor(overlay_of_images, {"trainer": {"max_steps": 1009}})
    assert f"come round {1009 * 8 * 0.3 / 1.3 / 13:.3g} times" in lines["image: cache"]


def test_a_cache_that_is_named_and_not_filled_yet(doctor: Any, folder: Path) -> None:
    named = {"model": {"modalities": {"image": {"cache": str(folder / "cache")}}}}
    overlays = (tiny_media.image_overlay(folder, frozen=True), named)
    code, lines = doctor(*overlays)
    assert code == 0, lines
    assert "found no features of this encoder" in lines["image: cache"]
    assert "kebyt5-xm cache" in lines["image: cache"]


def test_the_ranks_that_a_recipe_asks_for(doctor: Any) -> None:
    """Without fit beside it: Lightning would start this very command as the other ranks."""
    code, lines = doctor({"trainer": {"devices": 3}})
    assert code == 2
    assert "is not a multiple of data.micro_batch_size 2 x 3 ranks" in lines["error"]
    assert ranks({}) == ranks({"devices": "auto"}) == ranks({"devices": -1}) == 1
    assert ranks({"devices": 3, "num_nodes": 2}) == ranks({"devices": [0, 1, 5], "num_nodes": 2}) == 6
    assert ranks({"devices": "3"}) == 3
