"""No example is lost or repeated, however often a run is killed: five kills here, over a hundred in `make soak`."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tiny_run
from processes import CONTEXT
from soaking import KINDS, MICRO_BATCHES, make_data_module, run_life, write_sources

SOAK = bool(os.environ.get("KEBYT5_XM_SOAK"))
KILLS = {"counted": 34, "padded": 34, "packed": 34} if SOAK else {"counted": 2, "padded": 1, "packed": 2}
STEPS_PER_KILL = 4
"""More steps than a process trains on average in `MAX_MOMENTS`, so that no run ends before its last kill."""
MAX_MOMENTS = 29


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("soak")
    write_sources(folder)
    return folder


def run_in_process(folder: Path, *args: Any) -> int:
    """Run `soaking.run_life` with `args` in a process and return its exit code."""
    process = CONTEXT.Process(target=run_life, args=(str(folder), *args))
    process.start()
    process.join(300)
    assert process.pid is not None
    GROUPS.add(process.pid)
    code = process.exitcode
    assert code is not None, "it hangs"
    return code


GROUPS: set[int] = set()


def read_log(folder: Path, run: str) -> list[list]:
    return [json.loads(line) for line in (folder / run / "log").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("kind", KINDS)
def test_no_example_is_lost_or_repeated(folder: Path, kind: str) -> None:
    num_steps = STEPS_PER_KILL * KILLS[kind] + 3
    assert run_in_process(folder, f"{kind}-whole", kind, 1, 0, num_steps, None) == 0
    draw = np.random.default_rng([*kind.encode(), KILLS[kind]])
    for number in range(KILLS[kind]):
        # Workers are forked (the default here); in the first process a fork server starts them.
        method = "fork" if number else "forkserver"
        ranks, workers = int(draw.choice([1, 2, 4])), int(draw.choice([0, 1, 2])) if number else 1
        kill_at = int(draw.integers(1, MAX_MOMENTS + 1))
        assert (
            run_in_process(folder, kind, kind, ranks, workers, num_steps, kill_at, method) == -signal.SIGKILL
        )
    assert run_in_process(folder, kind, kind, 2, 1, num_steps, None) == 0
    whole, killed = read_log(folder, f"{kind}-whole"), read_log(folder, kind)
    assert [line[:3] for line in killed] == [[step, step, step + 1] for step in range(num_steps)]
    assert killed == whole
    # The uninterrupted run follows the plan: every example once, in order.
    data = make_data_module(folder, kind)
    start = 0
    for line in whole:
        batch = data.steps.batch(start)
        assert (line[3], len(line[4:])) == (batch.stop, MICRO_BATCHES)
        drawn = np.concatenate([micro.draws.index for micro in batch.micro_batches])
        left_out = [m.left_out.index for m in batch.micro_batches if m.left_out is not None]
        assert sorted([*drawn, *np.concatenate([*left_out, []])]) == list(range(start, batch.stop))
        start = batch.stop


@pytest.mark.slow
def test_workers_of_killed_processes_exit() -> None:
    """Workers notice within seconds that their parent is gone, and free memory and files."""
    if not GROUPS:
        pytest.skip("the test before was not run")
    left = [process for process in psutil.process_iter() if _group(process.pid) in GROUPS]
    _, alive = psutil.wait_procs(left, timeout=60)
    assert not alive


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return -1


@pytest.mark.slow
@pytest.mark.skipif(not SOAK, reason="one kill a run in test_resume; `make soak` kills one run five times")
def test_a_trainer_killed_five_times_is_bit_identical(tmp_path: Path) -> None:
    tiny_run.write_stores(tmp_path)
    assert tiny_run.fit_to_log(tmp_path, tiny_run.resumable_recipe(tmp_path, "whole")) == [0]
    for number, micro_batch in enumerate([9, 11, 14, 18, 23]):
        kill = {"class_path": "killing.KillAfter", "init_args": {"micro_batch": micro_batch}}
        contents = tiny_run.resumable_recipe(tmp_path, "killed", callbacks=[kill])
        resume = ("--ckpt_path", "last") if number else ()
        assert tiny_run.fit_to_log(tmp_path, contents, *resume) == [-signal.SIGKILL], (
            tmp_path / "log"
        ).read_text()
    assert tiny_run.fit_to_log(
        tmp_path, tiny_run.resumable_recipe(tmp_path, "killed"), "--ckpt_path", "last"
    ) == [0]
    assert tiny_run.train_losses(tmp_path / "killed") == tiny_run.train_losses(tmp_path / "whole")
