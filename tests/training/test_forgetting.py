"""The forgetting meter: its measurements and the effects of its actions on a run."""

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_media
import tiny_run
from tiny_run import fit_to_log as fit
from tiny_run import train_losses

from kebyt5_xm.data.batch import Progress
from kebyt5_xm.data.order.cursor import Cursor
from kebyt5_xm.data.order.steps import Budget
from kebyt5_xm.data.sources.source import Part
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.runs.run import Run
from kebyt5_xm.training.callbacks.forgetting import Forgetting, ForgettingMeter
from kebyt5_xm.training.recipes import overlay

STEPS = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("forgetting")
    tiny_run.write_stores(folder)
    tiny_media.write_manifest(folder / "pairs.jsonl", [{"n": n, "word": f"답 {n % 3}"} for n in range(17)])
    return folder


def recipe(folder: Path, name: str, workers: int = 0, **forgetting: Any) -> dict[str, Any]:
    """A recipe of text and pairs, with a rate that makes the model worse at both."""
    pairs = {"path": str(folder / "pairs.jsonl"), "prompt": "{n} = ", "target": "{word}", "weight": 3.0}
    added = {
        "forgetting": {"from_scratch": True} | ({"tolerance": 0.01, **forgetting} if forgetting else {}),
        "model": {"optimizer": {"init_args": {"lr": 0.5}}},
        "data": {
            "num_workers": workers,
            "sources": {"pairs": {"class_path": "kebyt5_xm.data.Manifest", "init_args": pairs}},
        },
        "trainer": {"val_check_interval": 2, "max_steps": STEPS},
    }
    return overlay(tiny_run.recipe(folder, name), added)


def values(run: Path, metric: str) -> dict[int, float]:
    return {row["step"]: row["value"] for row in Run(run).metrics() if row["metric"] == metric}


@pytest.fixture(scope="module")
def measured(folder: Path) -> Path:
    assert fit(folder, recipe(folder, "measured")) == [0], (folder / "log").read_text()[-3000:]
    (folder / "log").rename(folder / "measured.log")
    return folder / "measured"


@pytest.mark.slow
def test_text_is_measured_before_the_first_step(folder: Path, measured: Path) -> None:
    assert "data: measured the lengths of 17 rows in" in (folder / "measured.log").read_text()
    for language in tiny_run.WORDS:
        bits = values(measured, f"val/bits_per_byte/text/{language}")
        risen = values(measured, f"forgetting/text/{language}")
        assert sorted(bits) == [0, 2, 4, 6, 8] == sorted(risen)
        assert risen == pytest.approx({step: now - bits[0] for step, now in bits.items()}, abs=1e-5)
        found = Run(measured).results()["forgetting"][f"text/{language}"]
        assert found["start"] == pytest.approx(bits[0])
        assert found["end"] == pytest.approx(bits[8])
        assert found["worst"] == pytest.approx(max(bits.values()))
    assert set(values(measured, "text_share").values()) == {0.25}
    epochs = values(measured, "epochs/pairs")
    assert sorted(epochs) == list(range(1, STEPS + 1))
    assert list(epochs.values()) == sorted(epochs.values())
    assert epochs[STEPS] * 17 == pytest.approx(round(epochs[STEPS] * 17), abs=1e-6), "whole rows of 17"
    assert epochs[STEPS] == pytest.approx(Run(measured).results()["epochs"]["pairs"], abs=1e-4)
    assert 2 < epochs[STEPS] < 3.3, "three quarters of 64 examples are 48"


@pytest.mark.slow
def test_a_run_that_forgets_is_stopped_and_continues_with_another_action(
    folder: Path, measured: Path
) -> None:
    run = folder / "stopped"
    assert fit(folder, recipe(folder, "stopped", action="stop")) == [2]
    log = (folder / "log").read_text()
    assert "error: step 2: held-out text of 'text/" in log
    assert "0.01 more are allowed; the run is stopped and saved" in log
    assert "Traceback" not in log
    assert Run(run).last.name == "step=2.ckpt"
    assert Run(run).best.exists(), "what follows a validation was done"
    assert fit(folder, recipe(folder, "stopped", action="stop"), "--ckpt_path", "last") == [2], (
        "the same gate"
    )
    assert Run(run).last.name == "step=2.ckpt"
    assert fit(folder, recipe(folder, "stopped", action="warn"), "--ckpt_path", "last") == [0]
    assert "forgetting: step 4: held-out text of 'text/" in (folder / "log").read_text()
    assert values(run, "forgetting/text/ko") == values(measured, "forgetting/text/ko")
    assert train_losses(run) == train_losses(measured)


def assert_shares_follow(run: Path) -> None:
    """At this rate the model swings: text is raised, recovers, and is raised again."""
    shares, factor = values(run, "text_share"), 1.0
    for step in range(0, STEPS + 1, 2):  # logged before the validation changes it
        assert shares[step] == pytest.approx(factor / (factor + 3), abs=1e-4)
        worst = max(values(run, f"forgetting/text/{language}")[step] for language in tiny_run.WORDS)
        factor = min(2 * factor, 4) if worst > 0.01 else 1.0
    assert shares[4] > shares[0], "nothing was raised; take another rate"


@pytest.fixture(scope="module")
def raised(folder: Path) -> Path:
    assert fit(folder, recipe(folder, "raised", action="raise_text", max_factor=4.0)) == [0]
    (folder / "log").rename(folder / "raised.log")
    return folder / "raised"


@pytest.mark.slow
def test_the_share_of_text_is_raised(raised: Path) -> None:
    assert_shares_follow(raised)
    log = (raised.parent / "raised.log").read_text()
    assert "the weight of text is that of the recipe x 2 from here on, 40.0% of the examples" in log
    assert Run(raised).results()["epochs"]["pairs"] * 17 < 47, "less than the 48 of an unraised run"


KILLS = {
    "within a raised step": (0, {"class_path": "killing.KillAfter", "init_args": {"micro_batch": 22}}),
    "before a validation was judged": (
        2,
        {"class_path": "killing.KillInValidation", "init_args": {"step": 4}},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("moment", KILLS)
def test_killed_while_text_is_raised_and_continued_is_bit_identical(
    folder: Path, raised: Path, moment: str
) -> None:
    """Checkpoints are written at steps 2, 4 and 6, each before the validation that changes the weights."""
    workers, kill = KILLS[moment]
    name = moment.replace(" ", "-")
    settings = {"action": "raise_text", "max_factor": 4.0}
    contents = recipe(folder, name, workers, **settings)
    contents["trainer"]["callbacks"] = [kill]
    assert fit(folder, contents) == [-signal.SIGKILL]
    assert fit(folder, recipe(folder, name, workers, **settings), "--ckpt_path", "last") == [0]
    assert train_losses(folder / name) == train_losses(raised)
    assert values(folder / name, "text_share") == values(raised, "text_share")
    assert Run(folder / name).results()["epochs"] == Run(raised).results()["epochs"]


@pytest.mark.slow
def test_two_ranks_raise_it_alike(folder: Path, raised: Path) -> None:
    contents = recipe(folder, "ranks", action="raise_text", max_factor=4.0)
    contents["trainer"] |= {"strategy": "ddp", "devices": 2}
    assert fit(folder, contents, ranks=2) == [0, 0], (folder / "log").read_text()[-3000:]
    assert_shares_follow(folder / "ranks")
    one, two = (
        {key: loss for key, loss in train_losses(run).items() if key[0] <= 2}
        for run in (raised, folder / "ranks")
    )
    # Text is raised from step 3 on, and the same examples are drawn. At this rate each step multiplies rounding
    # errors by about a thousand: step 1 differs by 1e-7, step 2 by 1e-4, and from step 6 on decisions may differ.
    for step, tolerance in ((1, 1e-5), (2, 1e-3)):
        first, second = ({key: loss for key, loss in run.items() if key[0] == step} for run in (one, two))
        assert first
        assert second == pytest.approx(first, rel=tolerance)
    for part in ("pairs", "text/ko", "text/en"):
        first, second = (values(run, f"epochs/{part}") for run in (raised, folder / "ranks"))
        assert [first[step] for step in range(1, 6)] == [second[step] for step in range(1, 6)]


class Data:
    """Stands in for the data module: text and another source."""

    def __init__(
        self,
        text_alone: bool = False,
        held_out: bool = True,
        budget: Budget | None = None,
        epochs: int | None = None,
    ) -> None:
        text, pairs = (Part(name, 101, 1.0, "fingerprint", epochs) for name in ("text", "pairs"))
        parts = [text] if text_alone else [text, pairs]
        self.cursor = Cursor(parts, [1.0] * len(parts), [part is text for part in parts], 1.0, seed=0)
        self.held_out = held_out
        self.budget = budget

    @property
    def factors(self) -> list[float]:
        return [factor for _, _, factor in self.cursor.changes]

    def text_parts(self) -> list[str]:
        return ["text/ko", "text/en"] if self.held_out else []

    def set_text_factor(self, factor: float) -> None:
        self.cursor.set_text_factor(factor)


def set_up(data: Data, weights: str | None = "runs/text", **settings: Any) -> tuple[ForgettingMeter, Any]:
    meter = ForgettingMeter(Forgetting(**settings), SimpleNamespace(), data)  # pyright: ignore[reportArgumentType]
    trainer: Any = SimpleNamespace(
        state=SimpleNamespace(fn="fit"),
        strategy=SimpleNamespace(broadcast=lambda value: value),
        loggers=[],
        limit_val_batches=1.0,
        global_step=0,
        accumulate_grad_batches=3,
        val_check_batch=6,
    )
    module: Any = SimpleNamespace(backbone=SimpleNamespace(weights=weights))
    meter.setup(trainer, module, "fit")
    return meter, trainer


def measure(meter: ForgettingMeter, trainer: Any, bits: list[tuple[float, float]]) -> None:
    for ko, en in bits:
        trainer.callback_metrics = {"val/bits_per_byte/text/ko": ko, "val/bits_per_byte/text/en": en}
        meter.on_validation_end(trainer, None)  # pyright: ignore[reportArgumentType]
        trainer.global_step += 1


def test_the_worst_language_decides_and_the_share_returns_once_it_is_back() -> None:
    data = Data()
    meter, trainer = set_up(data, action="raise_text", tolerance=0.5, max_factor=3.0)
    bits = [(2.0, 3.0), (2.4, 3.4), (2.6, 2.0), (2.0, 3.7), (2.5, 3.5), (2.6, 3.0)]
    measure(meter, trainer, bits)
    assert data.factors == [2.0, 3.0, 1.0, 2.0]
    assert meter.parts["text/ko"] == {"start": 2.0, "end": 2.6, "worst": 2.6}
    assert meter.parts["text/en"] == {"start": 3.0, "end": 3.0, "worst": 3.7}


def test_a_validation_within_a_step_changes_the_weights_at_its_end() -> None:
    """Validations by the clock (`val_check_interval: 00:00:10:00`) come at any micro-batch."""
    data = Data()
    meter, trainer = set_up(data, action="raise_text")
    measure(meter, trainer, [(2.0, 2.0)])
    within, last = (SimpleNamespace(progress=Progress(step=7, next_step=n)) for n in (7, 8))
    meter.on_train_batch_end(trainer, None, None, within, 0)  # pyright: ignore[reportArgumentType]
    measure(meter, trainer, [(9.0, 2.0)])
    assert data.factors == []
    meter.on_train_batch_end(trainer, None, None, last, 1)  # pyright: ignore[reportArgumentType]
    assert data.factors == [2.0]


@pytest.mark.parametrize("bits", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_above_every_tolerance(bits: float) -> None:
    data = Data()
    meter, trainer = set_up(data, action="raise_text", tolerance=1e9)
    measure(meter, trainer, [(2.0, 3.0), (bits, 3.0)])
    assert data.factors == [2.0]
    assert meter.parts["text/ko"] == {"start": 2.0, "end": float("inf"), "worst": float("inf")}
    measure(meter, trainer, [(2.0, 3.0)])
    assert data.factors == [2.0, 1.0]
    meter, trainer = set_up(Data(), action="stop")
    with pytest.raises(UserError, match=r"'text/ko' takes (nan|inf) bits per byte before the first step"):
        measure(meter, trainer, [(bits, 3.0)])
    meter, trainer = set_up(Data())
    measure(meter, trainer, [(bits, 3.0), (bits, 3.5)])
    assert list(meter.parts) == ["text/en"], "no start, so nothing to compare"


def test_another_action_resets_the_raised_weight() -> None:
    data = Data()
    data.set_text_factor(8.0)
    meter, trainer = set_up(data, action="warn")
    trainer.global_step = 3
    meter.load_state_dict({"parts": {"text/ko": {"start": 1.0, "end": 1.0, "worst": 1.0}}, "judged": 3})
    meter.on_train_start(trainer, None)  # pyright: ignore[reportArgumentType]
    assert data.factors == [8.0, 1.0]


def test_a_run_from_scratch_or_without_held_out_text_is_not_measured() -> None:
    for data, weights in ((Data(), None), (Data(held_out=False), "runs/text")):
        meter, trainer = set_up(data, weights)
        measure(meter, trainer, [(2.0, 2.0)])
        assert meter.parts == {}


@pytest.mark.parametrize(
    ("data", "weights", "action", "words"),
    [
        (Data(), None, "stop", "starts from random weights"),
        (Data(held_out=False), "runs/text", "warn", "no text is held out"),
        (Data(text_alone=True), "runs/text", "raise_text", "every source is text already"),
    ],
)
def test_actions_without_effect_are_refused(data: Data, weights: Any, action: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        set_up(data, weights, action=action)


def test_raising_text_needs_a_known_number_of_steps() -> None:
    data = Data(budget=Budget(1024, 512), epochs=1)
    with pytest.raises(UserError, match="all sources end after their `epochs`"):
        set_up(data, action="raise_text")


def test_an_action_for_a_run_that_began_without_measuring_is_refused() -> None:
    meter, trainer = set_up(Data(), action="stop")
    trainer.global_step = 3
    with pytest.raises(UserError, match="began without measuring"):
        meter.on_train_start(trainer, None)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"action": "warn", "tolerance": -1.0}, "expected 0 bits per byte or more"),
        ({"action": "raise_text", "factor": 1.0}, "expected a factor over 1"),
        ({"action": "raise_text", "factor": 4.0, "max_factor": 2.0}, "no larger than max_factor"),
        ({"tolerance": 0.2}, "action is none"),
        ({"action": "stop", "factor": 4.0}, "expected raise_text"),
    ],
)
def test_values_without_effect_are_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Forgetting(**wrong).check()
