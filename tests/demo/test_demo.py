"""The demo: its folder, its figures, and all stages with a few steps each."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from demo import console, evaluate, finetune, folder, report, requirements, restore
from demo.report import Results
from kebyt5_xm.errors import UserError, exit_on_user_error

ROOT = Path(__file__).parents[2]
NUM_NUMBERS = 3


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)


def test_only_its_own_folder_is_deleted():
    folder.make_empty()
    (folder.FOLDER / "data").mkdir()
    folder.make_empty()
    assert [path.name for path in folder.FOLDER.iterdir()] == [folder.MARKER.name]
    folder.MARKER.unlink()
    folder.make_empty()  # empty, so nothing is lost
    folder.MARKER.unlink()
    mine = folder.FOLDER / "thesis.txt"
    mine.write_text("mine")
    with pytest.raises(UserError, match="was not made by the demo"):
        folder.make_empty()
    folder.MARKER.touch()
    folder.FOLDER.rename("elsewhere")
    folder.FOLDER.symlink_to(Path("elsewhere").resolve())
    with pytest.raises(UserError, match="was not made by the demo"):
        folder.make_empty()
    assert Path("elsewhere/thesis.txt").read_text() == "mine"


def test_a_removal_that_was_stopped_can_be_repeated(monkeypatch: pytest.MonkeyPatch):
    folder.make_empty()
    (folder.FOLDER / "data").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(folder.shutil, "rmtree", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            folder.make_empty()
    folder.make_empty()
    assert [path.name for path in folder.FOLDER.iterdir()] == [folder.MARKER.name]


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    requirements.check()
    monkeypatch.setattr(requirements, "_installed", lambda name: name not in ("konlpy", "soundfile"))
    with pytest.raises(UserError, match=r"found no soundfile, konlpy, .* pip install 'kebyt5-xm\[demo\]'"):
        requirements.check()


def test_gaps_are_whole_characters():
    lines = ["짧다", "나라의 말이 중국과 달라 문자로 통하지 않는다", "x" * 41, "긴" * 97, "y" * 43]
    gaps = restore.cut_gaps("ko", lines, 2)
    assert [gap.before + gap.was + gap.after for gap in gaps] == lines[1:3]
    assert gaps[0].was == "과 달라 "  # 11 bytes of the middle; the next syllable would be bytes 12 to 14
    assert gaps[1].was == "x" * 12


def test_columns_hold_wide_characters():
    assert console.table(("", "a", "b"), [("한국", "中", 1.0), ("x", "yyy", None)], text_columns=2) == (
        "      a       b\n한국  中   1.00\nx     yyy     -"
    )


def test_figures_of_answers_and_of_constant_answers():
    rows = [
        {"language": language, "caption": caption, "image": f"{language}-{n}.png"}
        for language in ("ko", "en", "zh", "ja")
        for n, caption in enumerate(["aaaa", "aaaa", "abcd", "abce", "abcf"])
    ]
    wrote = ["aaaa", "aaab", "abcd", "", "abcf"] * 4
    figures = evaluate.figures(rows, wrote, "caption", "image")
    assert figures["items"] == 20
    assert figures["exact_match"] == pytest.approx(12 / 20)
    assert figures["character_error_rate"] == pytest.approx((1 + 4) / 20)
    ignoring = figures["languages"]["ko"]["ignoring"]
    assert ignoring["exact_match"] == pytest.approx(2 / 5), "aaaa every time"
    # abcd, say: three edits for each of two, one for each of two others
    assert ignoring["character_error_rate"] == pytest.approx((3 + 3 + 0 + 1 + 1) / 20)
    assert [e["file"] for e in figures["examples"] if e["language"] == "ja"] == ["ja-0.png", "ja-2.png"]


def test_every_recipe_says_what_to_expect():
    for recipe in folder.RECIPES.glob("*.yaml"):
        value, tolerance = report.read_expected(recipe)
        assert 0 < tolerance < value


@pytest.mark.slow
def test_all_stages(capfd: pytest.CaptureFixture[str]):
    overrides = [
        "--trainer.max_steps=3",
        "--trainer.val_check_interval=3",
        "--trainer.log_every_n_steps=1",
        "--model.schedule.init_args.warmup_steps=1",
        "--data.sources.text.init_args.max_validation_examples=5",
    ]
    # In its own process, like the real demo, since it silences Lightning's messages.
    path = f"import sys; sys.path.insert(0, {str(ROOT)!r}); "
    script = path + f"from demo.__main__ import run; run({overrides!r}, {NUM_NUMBERS})"
    done = subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", script], check=False)
    out, err = capfd.readouterr()
    assert done.returncode == 0, err
    for noise in ("Tip", "GPU available", "Warning", "tie_word_embeddings", "Traceback"):
        assert noise not in out + err, noise

    results = json.loads(folder.RESULTS.read_text(encoding="utf-8"))
    documented = set(re.findall(r"[a-z_]+", Results.__doc__ or ""))
    assert keys(results) - {"ko", "en", "zh", "ja"} <= documented
    text = results["text"]
    assert (text["steps"], text["step"], text["global_batch_size"]) == (3, 3, 8)
    assert list(text["languages"]) == ["ko", "en", "zh", "ja"]
    for language, part in text["languages"].items():
        assert part["uniform"] == 8 > part["unigram"] > part["bigram"] > 0
        assert part["bits_per_byte_before"] > part["bits_per_byte"] > 0
        lines = (folder.DATA / f"{language}.heldout.txt").read_text(encoding="utf-8").split("\n")
        assert part["heldout_documents"] == len(lines) - 1
        gaps = [gap for gap in text["restored"] if gap["language"] == language]
        assert len(gaps) == 3
        assert {gap["before"] + gap["was"] + gap["after"] for gap in gaps} <= set(lines)
    assert set(text["seconds"]) == {"prepare", "train", "export", "restore"}
    files = {"config.yaml", "metrics.csv", "results.json", "tensorboard", "checkpoints", "samples"}
    assert files <= {path.name for path in Path(text["run"]).iterdir()}
    assert {p.name for p in (Path(text["run"]) / "samples").iterdir()} == {"step=0.md", "step=3.md"}
    assert {"model.safetensors", "config.json"} <= {path.name for path in Path(text["export"]).iterdir()}
    joint = results["joint"]
    assert (results["image"]["steps"], joint["steps"]) == (3, 3)
    assert set(joint["bits_per_byte"]) == set(joint["bits_per_byte_before"]) == {"ko", "en", "zh", "ja"}
    for held_out, items in (
        (results["image"], 371),
        (joint["image"], 371),
        (joint["speech"], 4 * NUM_NUMBERS),
    ):
        assert held_out["items"] == items == sum(part["items"] for part in held_out["languages"].values())
        assert 0 <= held_out["exact_match"] <= 1
        assert 0 < held_out["ignoring"]["character_error_rate"] < 1
        assert len(held_out["examples"]) == 8
    assert {"image", "speech"} == {p.name for p in (Path(joint["export"]) / "adapters").iterdir()}
    for text_part in (str(folder.RESULTS), text["run"], text["export"], "Korean", "NOT as expected"):
        assert text_part in out
    check_fine_tuning(
        [*overrides, *(f"--data.sources.{name}.init_args.max_validation_examples=7" for name in TASKS)], path
    )


TASKS = ("names", "digits", "speech")


def check_fine_tuning(overrides: list[str], path: str) -> None:
    """Fine-tune the demo's model, and check the report."""
    script = path + f"from demo.finetune import run; run(*{overrides!r})"
    done = subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", script], check=False)
    assert done.returncode == 0
    run = folder.FOLDER / "finetune"
    evaluated = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    assert set(evaluated["sources"]) == set(TASKS)
    assert evaluated["sources"]["digits"]["modality_use"]["examples"] == 7
    assert set(json.loads((run / "results.json").read_text(encoding="utf-8"))["forgetting"]) == {
        f"text/{language}" for language in ("ko", "en", "zh", "ja")
    }
    assert "</html>" in (run / "report.html").read_text(encoding="utf-8")


def test_fine_tuning_needs_the_demo(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended, exit_on_user_error():
        finetune.run()
    assert ended.value.code == 2
    assert "run `make demo` first" in capsys.readouterr().err


def keys(value: Any) -> set[str]:
    if isinstance(value, list):
        return set().union(*map(keys, value))
    return set(value).union(*map(keys, value.values())) if isinstance(value, dict) else set()
