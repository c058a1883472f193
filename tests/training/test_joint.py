"""Joint training on text, images and speech: on one rank and two, with frozen encoders, kills and bad input."""

import signal
from pathlib import Path
from typing import Any

import pytest
import tiny_media
import tiny_run
from tiny_run import STRATEGIES, fit, log_of, losses, tensors, train_losses

from kebyt5_xm.data import Denoising, Manifest
from kebyt5_xm.data.order.plan import Plan
from kebyt5_xm.model.runs.run import Run
from kebyt5_xm.training.recipes import overlay

SEED, MICRO_BATCH = 5, 2


def recipe(folder: Path, run: str, *overlays: dict[str, Any], **trainer: Any) -> dict[str, Any]:
    """The tiny text recipe with the overlays of images and speech, or those given."""
    contents = tiny_run.recipe(folder, run, **trainer)
    contents["data"]["micro_batch_size"] = MICRO_BATCH
    for added in overlays or (tiny_media.image_overlay(folder), tiny_media.speech_overlay(folder)):
        contents = overlay(contents, added)
    return contents


def modalities_of_micro_batches(contents: dict[str, Any]) -> list[list[set[str]]]:
    """Return the sources of every micro-batch of every step, by the plan."""
    parts, weights, names = [], [], []
    for name, block in contents["data"]["sources"].items():
        source = {"text": Denoising}.get(name, Manifest)(**block["init_args"])
        for part in source.parts():
            parts.append(part)
            weights.append(source.weight * part.share)
            names.append(name)
    plan = Plan(tuple(parts), tuple(weights), SEED)
    steps = [
        [
            names[part]
            for part in plan.rows(step * tiny_run.GLOBAL_BATCH, (step + 1) * tiny_run.GLOBAL_BATCH).part
        ]
        for step in range(tiny_run.STEPS)
    ]
    return [
        [set(step[start : start + MICRO_BATCH]) for start in range(0, len(step), MICRO_BATCH)]
        for step in steps
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores, media, and the joint run of a single process."""
    folder = tmp_path_factory.mktemp("joint")
    tiny_run.write_stores(folder)
    tiny_media.write_media(folder)
    assert fit(folder, "single", recipe(folder, "single")) == [0], log_of(folder, "single")
    return folder


@pytest.mark.slow
def test_losses_are_logged_by_source(folder: Path) -> None:
    found = {name.split(" ")[1] for name in losses(Run(folder / "single"))}
    parts = ("text/ko", "text/en", "captions", "speech")
    assert {"train/loss", *(f"train/loss/{part}" for part in parts)} <= found
    assert {"val/loss", "val/loss/text/ko", "val/loss/text/en", "val/loss/captions"} <= found
    ratios = {row["metric"]: row["value"] for row in Run(folder / "single").metrics()}
    assert ratios["scale_ratio/image"] == pytest.approx(1, rel=0.1)
    assert ratios["scale_ratio/speech"] == pytest.approx(1, rel=0.1)


@pytest.mark.slow
def test_the_plan_has_the_cases_of_these_tests(folder: Path) -> None:
    steps = modalities_of_micro_batches(recipe(folder, "unused"))
    rounds = [
        (step[n], step[n + 1]) for step in steps for n in (0, 2)
    ]  # the micro-batches of ranks 0 and 1 at the same time
    assert any({one <= {"text"}, other <= {"text"}} == {True, False} for one, other in rounds)
    assert any("captions" in one and "speech" in other for one, other in rounds)
    assert any(one == {"captions", "speech"} for step in steps for one in step), "one batch, two modalities"
    assert any("captions" not in set().union(*step) for step in steps), "a whole step without an image"


@pytest.mark.slow
@pytest.mark.parametrize("name", STRATEGIES)
def test_two_ranks_equal_one_where_one_has_only_text(folder: Path, name: str) -> None:
    contents = recipe(folder, name, strategy=STRATEGIES[name], devices=2)
    assert fit(folder, name, contents, ranks=2) == [0, 0], log_of(folder, name)
    single, other = Run(folder / "single"), Run(folder / name)
    assert losses(other) == pytest.approx(losses(single), rel=1e-5)
    expected, found = tensors(single.last), tensors(other.last)
    assert found.keys() == expected.keys()
    for key, tensor in found.items():
        assert tensor.detach().numpy() == pytest.approx(expected[key].numpy(), rel=1e-3, abs=1e-4), key


@pytest.mark.slow
def test_a_frozen_encoder_does_not_change(folder: Path) -> None:
    encoder = "tiny_media.PatchesWithStatistics"
    thawed = recipe(folder, "thawed", tiny_media.image_overlay(folder, encoder))
    frozen = recipe(folder, "frozen", tiny_media.image_overlay(folder, encoder, frozen=True))
    expected = tiny_media.PatchesWithStatistics().state_dict()
    for name, contents in (("thawed", thawed), ("frozen", frozen)):
        assert fit(folder, name, contents) == [0], log_of(folder, name)
        prefix = "model.modalities.image.encoder."
        state = tensors(Run(folder / name).last)
        found = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        assert found.keys() == expected.keys()
        same = [key for key in expected if found[key].equal(expected[key])]
        if name == "frozen":
            assert same == list(expected)
        else:  # the test can fail: other encoders change, except the statistics of batch norm
            assert {key for key in expected if "running" in key} <= set(same)
            assert found["calls_in_training"] > 0
            assert not found["mlp.0.weight"].equal(expected["mlp.0.weight"])


@pytest.mark.slow
def test_killed_and_continued_is_bit_identical(folder: Path) -> None:
    def contents(run: str, **trainer: Any) -> dict[str, Any]:
        result = recipe(folder, run, **trainer)
        result["model"]["backbone"]["dropout"] = 0.1
        result["data"]["num_workers"] = 2
        return result

    assert fit(folder, "whole", contents("whole")) == [0], log_of(folder, "whole")
    kill = {"class_path": "killing.KillAfter", "init_args": {"micro_batch": 18}}
    assert fit(folder, "killed", contents("killed", callbacks=[kill])) == [-signal.SIGKILL]
    assert fit(folder, "killed", contents("killed"), "--ckpt_path", "last") == [0], log_of(folder, "killed")
    assert train_losses(folder / "killed") == train_losses(folder / "whole")
    whole, continued = (tensors(Run(folder / run).last) for run in ("whole", "killed"))
    assert all(continued[key].equal(whole[key]) for key in whole)


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("{pictur:image}", ["'{pictur:image}'", "column 'pictur'", "did you mean 'picture'"]),
        ("{picture:imge}", ["data.sources.captions", "modality 'imge'", "did you mean 'image'"]),
    ],
)
def test_a_prompt_with_an_unknown_name_is_refused(folder: Path, prompt: str, words: list[str]) -> None:
    contents = recipe(folder, "refused")
    contents["data"]["sources"]["captions"]["init_args"]["prompt"] = prompt
    assert fit(folder, "refused", contents) == [2]
    log = log_of(folder, "refused")
    assert all(word in log for word in words), log
    assert "Traceback" not in log
    assert not (folder / "refused" / "config.yaml").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encoder", "words"),
    [
        ("tiny_missing.Encoder", ["encoder", "pip install 'kebyt5-xm[image]'"]),
        (
            "no_such_package.encoders.Mine",
            ["cannot import no_such_package.encoders.Mine", "install the package"],
        ),
        (
            "encoders.stems.PatchEncodr",
            ["cannot import encoders.stems.PatchEncodr", "did you mean 'PatchEncoder'"],
        ),
    ],
)
def test_an_encoder_that_cannot_be_imported_is_named(folder: Path, encoder: str, words: list[str]) -> None:
    contents = recipe(folder, "refused", tiny_media.image_overlay(folder, encoder))
    assert fit(folder, "refused", contents) == [2]
    log = log_of(folder, "refused")
    assert all(word in log for word in words), log
    assert "Traceback" not in log


@pytest.mark.slow
def test_an_encoder_that_lies_about_its_length_is_named(folder: Path) -> None:
    contents = recipe(folder, "lying", tiny_media.image_overlay(folder, "tiny_media.LyingPatches"))
    assert fit(folder, "lying", contents) == [2]
    log = log_of(folder, "lying")
    assert "modality 'image'" in log
    assert "fills 6 slots, but its adapter made 4 vectors" in log
    assert "Traceback" not in log


@pytest.mark.slow
def test_a_missing_file_keeps_its_place_and_training_continues(folder: Path) -> None:
    """All images are missing, in the validation too: their rows do not count, and text still trains."""
    rows = [{"picture": f"missing-{n}.png", "caption": "?"} for n in range(tiny_media.NUM_IMAGES)]
    tiny_media.write_manifest(folder / "missing.jsonl", rows)
    contents = recipe(folder, "missing")
    contents["data"]["max_skipped"] = 1.0
    for key in ("path", "validation"):
        contents["data"]["sources"]["captions"]["init_args"][key] = str(folder / "missing.jsonl")
    assert fit(folder, "missing", contents) == [0], log_of(folder, "missing")
    found, expected = losses(Run(folder / "missing")), losses(Run(folder / "single"))
    assert not [key for key in found if "captions" in key]
    assert {key for key in expected if "captions" not in key} == found.keys()
    first = [key for key in found if key.startswith("1 train/loss/")]  # the same rows in the same places
    assert first
    assert [found[key] for key in first] == pytest.approx([expected[key] for key in first], rel=1e-5)
    assert "13 of 13 rows give no example" in log_of(folder, "missing")
