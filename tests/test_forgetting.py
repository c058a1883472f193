"""The forgetting meter: what it measures, and what each of its actions does to a run."""

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_media
import tiny_run
from processes import train
from test_resume import train_losses

from kebyt5_xm.errors import UserError
from kebyt5_xm.forgetting import Forgetting, ForgettingMeter
from kebyt5_xm.recipes import overlay
from kebyt5_xm.run import Run

STEPS = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("forgetting")
    tiny_run.write_stores(folder)
    tiny_media.write_manifest(folder / "pairs.jsonl", [{"n": n, "word": f"답 {n % 3}"} for n in range(17)])
    return folder


def recipe(folder: Path, name: str, workers: int = 0, **forgetting: Any) -> dict[str, Any]:
    """Text beside pairs, at a rate that makes the model worse at both."""
    pairs = {"path": str(folder / "pairs.jsonl"), "prompt": "{n} = ", "target": "{word}", "weight": 3.0}
    added = {
        "forgetting": {"from_scratch": True, "tolerance": 0.01, **forgetting},
        "model": {"optimizer": {"init_args": {"lr": 0.5}}},
        "data": {
            "num_workers": workers,
            "sources": {"pairs": {"class_path": "kebyt5_xm.data.Manifest", "init_args": pairs}},
        },
        "trainer": {"val_check_interval": 2, "max_steps": STEPS},
    }
    return overlay(tiny_run.recipe(folder, name), added)


def fit(folder: Path, contents: dict[str, Any], *args: str, ranks: int = 1) -> list[int]:
    path = tiny_run.write_recipe(folder, "recipe", contents)
    return train(["fit", "-c", path, *args], folder / "log", ranks)


def values(run: Path, metric: str) -> dict[int, float]:
    return {row["step"]: row["value"] for row in Run(run).metrics() if row["metric"] == metric}


@pytest.mark.slow
def test_text_is_measured_before_the_first_step(folder: Path) -> None:
    assert fit(folder, recipe(folder, "measured")) == [0], (folder / "log").read_text()[-3000:]
    for language in tiny_run.WORDS:
        bits = values(folder / "measured", f"val/bits_per_byte/text/{language}")
        risen = values(folder / "measured", f"forgetting/text/{language}")
        assert sorted(bits) == [0, 2, 4, 6, 8] == sorted(risen)
        assert risen == pytest.approx({step: now - bits[0] for step, now in bits.items()}, abs=1e-5)
        found = Run(folder / "measured").results()["forgetting"][f"text/{language}"]
        assert found["start"] == pytest.approx(bits[0])
        assert found["end"] == pytest.approx(bits[8])
        assert found["worst"] == pytest.approx(max(bits.values()))
    assert set(values(folder / "measured", "text_share").values()) == {0.25}


@pytest.mark.slow
def test_a_run_that_forgets_is_stopped_and_can_go_on(folder: Path) -> None:
    assert fit(folder, recipe(folder, "stopped", action="stop")) == [2]
    log = (folder / "log").read_text()
    assert "bits per byte" in log
    assert "go on with --ckpt_path last" in log
    assert "Traceback" not in log
    assert Run(folder / "stopped").last.name == "step=2.ckpt"
    assert fit(folder, recipe(folder, "stopped", action="warn"), "--ckpt_path", "last") == [0]
    assert "forgetting: step 4: held-out text of 'text/" in (folder / "log").read_text()
    bits = values(folder / "stopped", "val/bits_per_byte/text/ko")
    risen = values(folder / "stopped", "forgetting/text/ko")
    assert risen[8] == pytest.approx(bits[8] - bits[0], abs=1e-5), "held against the first start"


@pytest.fixture(scope="module")
def raised(folder: Path) -> Path:
    assert fit(folder, recipe(folder, "raised", action="raise_text", max_factor=4.0)) == [0]
    return folder / "raised"


@pytest.mark.slow
def test_the_share_of_text_is_raised(raised: Path) -> None:
    shares = values(raised, "text_share")
    # Logged as they were up to the validation: 1 in 4, then twice and four times the weight.
    assert [shares[step] for step in (0, 2, 4, 6)] == pytest.approx([1 / 4, 1 / 4, 2 / 5, 4 / 7])
    drawn = Run(raised).results()["epochs"]
    assert sum(drawn.values()) > 0


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "micro_batch"), [(0, 18), (2, 22), (2, 29)])
def test_killed_while_text_is_raised_and_continued_is_bit_identical(
    folder: Path, raised: Path, workers: int, micro_batch: int
) -> None:
    name = f"killed-{workers}-{micro_batch}"
    settings = {"action": "raise_text", "max_factor": 4.0}
    contents = recipe(folder, name, workers, **settings)
    kill = {"class_path": "killing.KillAfter", "init_args": {"micro_batch": micro_batch}}
    contents["trainer"]["callbacks"] = [kill]
    assert fit(folder, contents) == [-signal.SIGKILL]
    assert fit(folder, recipe(folder, name, workers, **settings), "--ckpt_path", "last") == [0]
    assert train_losses(folder / name) == train_losses(raised)
    assert Run(folder / name).results()["epochs"] == Run(raised).results()["epochs"]


@pytest.mark.slow
def test_two_ranks_raise_it_alike(folder: Path, raised: Path) -> None:
    contents = recipe(folder, "ranks", action="raise_text", max_factor=4.0)
    contents["trainer"] |= {"strategy": "ddp", "devices": 2}
    assert fit(folder, contents, ranks=2) == [0, 0], (folder / "log").read_text()[-3000:]
    assert Run(folder / "ranks").results()["epochs"] == Run(raised).results()["epochs"]
    assert values(folder / "ranks", "text_share") == values(raised, "text_share")
    # At such a rate what differs in the last bits is a lot a few steps later.
    found, expected = (
        {key: loss for key, loss in train_losses(run).items() if key[0] <= 4}
        for run in (folder / "ranks", raised)
    )
    assert found == pytest.approx(expected, rel=1e-3)


class Data:
    """Stands in for the data module."""

    text_factor = 1.0

    def text_parts(self) -> list[str]:
        return ["text/ko"]

    def text_share(self) -> float:
        return self.text_factor / (self.text_factor + 1)

    def set_text_factor(self, factor: float) -> None:
        self.text_factor = factor


def test_the_share_returns_once_the_text_is_back() -> None:
    data, meter = Data(), ForgettingMeter(Forgetting(tolerance=0.5, action="raise_text", max_factor=3.0))
    factors = []
    for step, bits in enumerate([2.0, 2.4, 2.6, 2.7, 2.5, 2.6]):
        trainer = SimpleNamespace(
            datamodule=data,
            state=SimpleNamespace(fn="fit"),
            global_step=step,
            loggers=[],
            callback_metrics={"val/bits_per_byte/text/ko": bits},
        )
        meter.on_validation_end(trainer, None)  # pyright: ignore[reportArgumentType]
        factors.append(data.text_factor)
    assert factors == [1.0, 1.0, 2.0, 3.0, 1.0, 2.0]
    assert meter.parts["text/ko"] == {"start": 2.0, "end": 2.6, "worst": 2.7}


@pytest.mark.parametrize("wrong", [{"tolerance": -1.0}, {"factor": 1.0}, {"factor": 4.0, "max_factor": 2.0}])
def test_values_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match="expected"):
        ForgettingMeter(Forgetting(**wrong))
