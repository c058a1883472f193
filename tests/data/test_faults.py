"""What goes wrong around a run while it goes on: a worker is killed, a reader stalls, files are deleted.

A full disk is in test_checkpoints, test_checkpoint_folders, test_cache, test_manifest and test_prepare.
"""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import tiny_media
import tiny_run
from killing import Faulty
from soaking import digest_batch, make_interfaces

from kebyt5_xm.data import DataModule, Manifest
from kebyt5_xm.data.batch import Batch
from kebyt5_xm.data.loading.loader import Loader
from kebyt5_xm.data.loading.micro_batches import TrainingMicroBatches, TrainingOrders
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.runs.run import Run

STEPS, MICRO_BATCHES = 41, 2
ROWS = [{"question": f"{n} 다음은?", "answer": f"{n + 1}입니다"} for n in range(53)]


def batches(source: Manifest, timeout: float = 0.0) -> Iterator[Batch]:
    """Yield the micro-batches of a run over one source, made by two workers."""
    data = DataModule({"source": source}, global_batch_size=3 * MICRO_BATCHES, micro_batch_size=3, seed=11)
    data.connect(
        {name: interface for name, interface in make_interfaces().items() if name in source.modalities}
    )
    orders = TrainingOrders(data.steps, 0, 1, 0, 0, STEPS)
    length = STEPS * MICRO_BATCHES
    yield from Loader(
        TrainingMicroBatches(data.training), orders, length, 2, pin_memory=False, timeout=timeout
    )


@pytest.mark.slow
def test_a_reader_that_stalls_is_an_error(tmp_path: Path) -> None:
    tiny_media.write_manifest(tmp_path / "rows.jsonl", ROWS)
    marker = tmp_path / "marker"
    marker.touch()

    def source() -> Faulty:
        return Faulty(str(tmp_path / "rows.jsonl"), "{question}", "{answer}", "stall", 31, str(marker))

    seen: list[str] = []

    def read() -> None:
        for batch in batches(source(), timeout=2.0):
            seen.append(digest_batch(batch))

    with pytest.raises(
        UserError, match=r"a data worker gave nothing for 2 seconds: .*continue with --ckpt_path last"
    ):
        read()
    assert not marker.exists()
    whole = [digest_batch(batch) for batch in batches(source())]
    assert len(whole) == STEPS * MICRO_BATCHES
    assert len(seen) < len(whole)
    assert seen == whole[: len(seen)]


@pytest.mark.slow
def test_a_run_whose_worker_was_killed_is_continued_bit_by_bit(tmp_path: Path) -> None:
    tiny_run.write_stores(tmp_path)
    tiny_media.write_manifest(tmp_path / "rows.jsonl", ROWS)
    marker = tmp_path / "marker"
    options = {"path": str(tmp_path / "rows.jsonl"), "prompt": "{question}", "target": "{answer}"}
    options |= {"fault": "kill", "at": 197, "marker": str(marker)}

    def recipe(run: str) -> dict[str, Any]:
        contents = tiny_run.resumable_recipe(tmp_path, run, max_steps=31, val_check_interval=31)
        contents["data"]["sources"]["rows"] = {"class_path": "killing.Faulty", "init_args": options}
        return contents

    log = tmp_path / "log"
    assert tiny_run.fit_to_log(tmp_path, recipe("whole")) == [0], log.read_text()
    marker.touch()  # the workers are some ten steps ahead of the training
    assert tiny_run.fit_to_log(tmp_path, recipe("killed")) == [2], log.read_text()
    (line,) = [line for line in log.read_text().splitlines() if line.startswith("error: ")]
    assert "a data worker was killed" in line
    assert "Traceback" not in log.read_text()
    assert Run(tmp_path / "killed").last.name != "step=31.ckpt"
    assert tiny_run.fit_to_log(tmp_path, recipe("killed"), "--ckpt_path", "last") == [0], log.read_text()
    assert tiny_run.train_losses(tmp_path / "killed") == tiny_run.train_losses(tmp_path / "whole")


def test_workers_that_are_interrupted_go_on(tmp_path: Path) -> None:
    """Ctrl-C goes to them too, and the step that is saved needs the rest of its micro-batches."""
    tiny_media.write_manifest(tmp_path / "rows.jsonl", ROWS)
    found = batches(Manifest(str(tmp_path / "rows.jsonl"), "{question}", "{answer}"))
    next(found)
    this = psutil.Process()
    workers = [child for child in this.children() if child.cmdline() == this.cmdline()]  # forks, no servers
    for worker in workers:
        worker.send_signal(signal.SIGINT)
    assert (len(workers), len(list(found))) == (2, STEPS * MICRO_BATCHES - 1)


def test_files_that_are_deleted_meanwhile(tmp_path: Path) -> None:
    """A medium leaves its place empty; a manifest that is open is read on."""
    tiny_media.write_media(tmp_path)

    def source() -> Manifest:
        return Manifest(str(tmp_path / "images.jsonl"), "{picture:image} 설명: ", "{caption}")

    whole = list(batches(source()))
    found = batches(source())
    first = next(found)
    for name in ("4.png", "images.jsonl", "images.jsonl.index"):
        (tmp_path / name).unlink()
    rest = list(found)
    skips = [skip for batch in rest for skip in batch.skipped]
    assert {(skip.line, Path(skip.path).name, skip.cause) for _, skip in skips} == {
        (5, "4.png", "there is no such file")
    }
    same = [digest_batch(old) == digest_batch(new) for old, new in zip(whole, [first, *rest], strict=True)]
    assert same == [not batch.skipped for batch in [first, *rest]]
