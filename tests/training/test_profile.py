"""`--profile true` writes a trace of ten steps, and every run logs its speed."""

import gzip
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_run
import torch

from kebyt5_xm.data.batch import Progress
from kebyt5_xm.model.runs.run import Run
from kebyt5_xm.training.callbacks import profile as module_under_test
from kebyt5_xm.training.callbacks.profile import Profile


@pytest.mark.slow
def test_a_run_writes_its_trace_and_its_speed(tmp_path: Path) -> None:
    tiny_run.write_stores(tmp_path)
    codes, log = tiny_run.fit_and_read_log(tmp_path, tiny_run.recipe(tmp_path, "run"), "--profile", "true")
    assert codes == [0], log[-2000:]
    assert f"profile: steps 1 to {tiny_run.STEPS} are in {tmp_path / 'run' / 'profile'}" in log
    with gzip.open(tmp_path / "run" / "profile" / "trace.json.gz") as file:
        names = [event.get("name") for event in json.load(file)["traceEvents"]]
    assert names.count("Optimizer.step#AdamW.step") == tiny_run.STEPS
    rows = (tmp_path / "run" / "profile" / "operators.txt").read_text().splitlines()
    assert len([row for row in rows if "%" in row]) == 1 + 10  # the head, and an operator in each row
    assert "CPU: " in log
    logged = {row["metric"] for row in Run(tmp_path / "run").metrics()}
    assert {"train/tflops", "train/share_waiting_for_data"} <= logged


class Recorder:
    """In place of PyTorch's profiler: remembers when it starts and stops."""

    def __init__(self, events: list[str]) -> None:
        self.events = events

    def start(self) -> None:
        self.events.append("start")

    def stop(self) -> None:
        self.events.append("stop")

    def export_chrome_trace(self, path: str) -> None:
        self.events.append(Path(path).name)

    def key_averages(self) -> Any:
        return SimpleNamespace(table=lambda key, row_limit: key)


@pytest.mark.parametrize(
    ("resumed", "steps", "first", "last"), [(0, 40, 5, 15), (7, 40, 12, 22), (0, 12, 2, 12), (3, 5, 3, 5)]
)
def test_ten_steps_are_traced_after_a_warm_up_if_the_run_is_long_enough(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, resumed: int, steps: int, first: int, last: int
) -> None:
    events: list[str] = []
    monkeypatch.setattr(module_under_test, "profile", lambda activities: Recorder(events))
    trainer: Any = SimpleNamespace(global_step=resumed, max_steps=steps, is_global_zero=True)
    module: Any = SimpleNamespace(device=torch.device("cpu"))
    callback = Profile(tmp_path / "profile")
    callback.on_train_start(trainer, module)
    for step in range(resumed, steps):
        for micro_batch in range(2):
            batch: Any = SimpleNamespace(progress=Progress(step=step, next_step=step + micro_batch))
            callback.on_train_batch_start(trainer, module, batch, 0)
            events.append(f"{step}.{micro_batch}")
            callback.on_train_batch_end(trainer, module, None, batch, 0)
    traced = events[events.index("start") + 1 : events.index("stop")]
    assert traced == [f"{step}.{n}" for step in range(first, last) for n in range(2)]
    assert events.count("start") == events.count("stop") == 1
    assert (tmp_path / "profile" / "operators.txt").read_text() == "self_cpu_time_total"


def test_a_run_that_fails_while_it_is_traced_ends_the_trace(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    events: list[str] = []
    monkeypatch.setattr(module_under_test, "profile", lambda activities: Recorder(events))
    trainer: Any = SimpleNamespace(global_step=0, max_steps=3, is_global_zero=True)
    module: Any = SimpleNamespace(device=torch.device("cpu"))
    callback = Profile(tmp_path / "profile")
    callback.on_train_start(trainer, module)
    batch: Any = SimpleNamespace(progress=Progress(step=0, next_step=1))
    callback.on_train_batch_start(trainer, module, batch, 0)
    callback.on_exception(trainer, module, ValueError())
    assert events == ["start", "stop"]
    assert not (tmp_path / "profile").exists()
