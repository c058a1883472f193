"""The speed of training alone: bytes, operations of the model, and waiting for data."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from kebyt5_xm.data.batch import Progress, collate
from kebyt5_xm.data.inputs import Example
from kebyt5_xm.data.loading import loader
from kebyt5_xm.data.loading.loader import Loader
from kebyt5_xm.model import flops
from kebyt5_xm.model.backbone import Backbone
from kebyt5_xm.model.flops import step_flops, training_passes
from kebyt5_xm.model.runs.run import Run
from kebyt5_xm.training.callbacks import throughput as module_under_test
from kebyt5_xm.training.callbacks.throughput import Throughput
from kebyt5_xm.training.loggers import MetricsLog

SHAPE = {"d_model": 26, "d_kv": 6, "d_ff": 34, "num_heads": 3, "num_layers": 3, "num_decoder_layers": 2}
LENGTHS = [(11, 5), (31, 7)]
ID_COUNT = 54


class Clock:
    """A clock that tests move by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(module_under_test.time, "perf_counter", lambda: self.now)


class Logged:
    """A logger that remembers its metrics."""

    def __init__(self) -> None:
        self.metrics: list[dict[str, float]] = []

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self.metrics.append(metrics)


def make_module(frozen: bool = False) -> Any:
    backbone = Backbone(shape=SHAPE, frozen=frozen).build()
    return SimpleNamespace(
        model=SimpleNamespace(backbone=backbone), device=torch.device("cpu"), log=lambda *_, **__: None
    )


def make_trainer(steps: int, every: int, logger: Any, **others: Any) -> Any:
    return SimpleNamespace(
        **{"global_step": 0, "world_size": 1, "train_dataloader": None, **others},
        log_every_n_steps=every,
        max_steps=steps,
        loggers=[logger],
    )


def make_batch(step: int) -> Any:
    return SimpleNamespace(
        num_ids=ID_COUNT, lengths=LENGTHS, progress=Progress(step=step - 1, next_step=step)
    )


def test_validation_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, logged, module = Clock(monkeypatch), Logged(), make_module()
    trainer = make_trainer(2, 1, logged, world_size=3)
    throughput = Throughput()

    throughput.on_validation_start(trainer, module)  # a validation before the first step
    clock.now += 500
    throughput.on_validation_end(trainer, module)
    throughput.on_train_start(trainer, module)
    for step in (1, 2):
        clock.now += 4
        throughput.on_validation_start(trainer, module)
        clock.now += 100
        throughput.on_validation_end(trainer, module)
        clock.now += 1
        trainer.global_step = step
        throughput.on_train_batch_end(trainer, module, None, make_batch(step), step - 1)

    per_device = sum(step_flops(module.model.backbone.config, *length) for length in LENGTHS) / 5
    assert logged.metrics[1] == logged.metrics[0]
    assert logged.metrics[0] == {
        "train/bytes_per_second": ID_COUNT * 3 / 5,
        "train/tflops": pytest.approx(per_device / 1e12),
        "train/share_waiting_for_data": 0.0,
    }
    assert throughput.total_seconds == 10
    assert throughput.bytes_per_second == ID_COUNT * 3 / 5


@pytest.mark.parametrize("steps", [1, 9, 10, 19])
def test_runs_of_any_length_count_to_the_last_step(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, steps: int
) -> None:
    """Logged every ten steps and at the last; 0.05 seconds per step."""
    clock, module = Clock(monkeypatch), make_module()
    trainer = make_trainer(steps, 10, MetricsLog(tmp_path))
    throughput = Throughput()
    throughput.on_train_start(trainer, module)
    for step in range(1, steps + 1):
        clock.now += 0.05
        trainer.global_step = step
        throughput.on_train_batch_end(trainer, module, None, make_batch(step), step - 1)
    assert throughput.total_seconds == pytest.approx(0.05 * steps)
    assert throughput.bytes_per_second == pytest.approx(ID_COUNT / 0.05)
    (tmp_path / "config.yaml").touch()
    assert {row["step"] for row in Run(tmp_path).metrics()} == {s for s in (10, steps) if s <= steps}


def test_the_share_of_the_peak_is_logged_where_the_device_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, logged, module = Clock(monkeypatch), Logged(), make_module()
    monkeypatch.setattr(module_under_test, "peak_flops", lambda device: 4e9)
    trainer = make_trainer(1, 1, logged)
    throughput = Throughput()
    throughput.on_train_start(trainer, module)
    clock.now += 0.5
    trainer.global_step = 1
    throughput.on_train_batch_end(trainer, module, None, make_batch(1), 0)
    assert logged.metrics[0]["train/mfu"] == pytest.approx(logged.metrics[0]["train/tflops"] / 4e-3)


def test_the_time_in_the_loader_is_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch takes 3 seconds to make and 7 to train on; the first is made before training starts."""
    clock, logged, module = Clock(monkeypatch), Logged(), make_module()
    monkeypatch.setattr(loader.time, "perf_counter", lambda: clock.now)

    class Slow(torch.utils.data.Dataset):
        def __getitem__(self, number: int) -> Any:
            clock.now += 3
            return make_batch(number)

    batches: Iterator[Any] = iter(source := Loader(Slow(), [1, 2, 3], 3, num_workers=0, pin_memory=False))
    trainer = make_trainer(3, 1, logged, train_dataloader=source)
    throughput = Throughput()
    batch = next(batches)
    throughput.on_train_start(trainer, module)
    for step in (1, 2):
        batch = next(batches)
        clock.now += 7
        trainer.global_step = step
        throughput.on_train_batch_end(trainer, module, None, batch, step - 1)
    assert [m["train/share_waiting_for_data"] for m in logged.metrics] == pytest.approx([0.3, 0.3])


@pytest.mark.parametrize(("frozen", "passes"), [(False, 3.0), (True, 2.0)])
def test_frozen_weights_need_no_gradient(frozen: bool, passes: float) -> None:
    assert training_passes(make_module(frozen).model.backbone) == pytest.approx(passes)


@pytest.mark.parametrize("packed_row", [None, np.asarray([0, 0, 1])])
def test_a_batch_knows_the_lengths_of_its_counted_examples(packed_row: Any) -> None:
    examples = [Example.of_texts("가나다", "라"), Example.of_texts("abc", "de"), Example.empty()]
    batch = collate(examples, np.zeros(3, dtype=np.int64), interfaces={}, packed_row=packed_row)
    assert batch.lengths == [(10, 4), (4, 3)]
    assert sum(map(sum, batch.lengths)) == batch.num_ids


def test_a_device_without_a_published_peak_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flops.torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    assert flops.peak_flops(torch.device("cuda")) == 989.4e12
    monkeypatch.setattr(flops.torch.cuda, "get_device_name", lambda device: "another card")
    assert flops.peak_flops(torch.device("cuda")) is None
    assert flops.peak_flops(torch.device("cpu")) is None
