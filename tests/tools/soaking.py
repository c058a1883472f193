"""Data loading without a trainer, in a process that kills itself at a chosen moment and can be restarted."""

import gzip
import hashlib
import json
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import tiny_media
import tiny_run

from encoders.stems import LogMelEncoder, PatchEncoder
from kebyt5_xm.adapters import Linear
from kebyt5_xm.data import DataModule, Denoising, Manifest
from kebyt5_xm.data.batch import Batch
from kebyt5_xm.data.loading.loader import Loader
from kebyt5_xm.data.loading.micro_batches import TrainingMicroBatches, TrainingOrders
from kebyt5_xm.data.order.steps import Budget
from kebyt5_xm.model.modality import interface

MICRO_BATCHES = 4
"""Micro-batches per step; 1, 2 or 4 ranks share them."""
STEPS_BETWEEN_CHECKPOINTS = 2
KINDS: dict[str, dict[str, Any]] = {
    "counted": {"global_batch_size": 2 * MICRO_BATCHES, "micro_batch_size": 2},
    "padded": {"budget": Budget(MICRO_BATCHES * 211, 211)},
    "packed": {"budget": Budget(MICRO_BATCHES * 2 * 103, 2 * 103, 103)},
}


def write_sources(folder: Path) -> None:
    """Write the data sets: stores, plain and compressed JSON lines, parquet, images and recordings."""
    tiny_run.write_stores(folder)
    tiny_media.write_media(folder)
    rows = [{"question": f"{n} 다음은?", "answer": f"{n + 1}입니다"} for n in range(53)]
    tiny_media.write_manifest(folder / "plain.jsonl", rows)
    (folder / "packed.jsonl.gz").write_bytes(gzip.compress((folder / "plain.jsonl").read_bytes()[:-400]))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows[:37]), folder / "table.parquet")
    (folder / "5.png").write_bytes(b"broken")  # one example of every epoch is skipped
    make_data_module(folder, "counted").prepare(make_interfaces())  # the length tables


def make_interfaces() -> dict[str, Any]:
    image = PatchEncoder(image_size=16, out_dim=8)
    speech = LogMelEncoder(out_dim=12, sample_rate=tiny_media.SAMPLE_RATE, num_mels=17)
    return {"image": interface(image, Linear, 16), "speech": interface(speech, Linear, 16)}


def make_data_module(folder: Path, kind: str) -> DataModule:
    """Return the connected data module for one kind of global batch."""

    def manifest(name: str, prompt: str, target: str, weight: float) -> Manifest:
        return Manifest(str(folder / name), prompt, target, weight=weight)

    stores = {language: str(folder / language) for language in tiny_run.WORDS}
    sources = {
        "text": Denoising(stores, inputs_length=97),
        "plain": manifest("plain.jsonl", "{question}", "{answer}", 0.7),
        "gz": manifest("packed.jsonl.gz", "{question}", "{answer}", 0.3),
        "parquet": manifest("table.parquet", "{question}", "{answer}", 0.5),
        "images": manifest("images.jsonl", "{picture:image} 설명: ", "{caption}", 0.4),
        "speech": manifest("speech.jsonl", "{recording:speech}", "{transcript}", 0.4),
    }
    data = DataModule(sources, seed=11, **KINDS[kind])
    data.connect(make_interfaces())
    return data


def run_life(
    folder: str,
    run: str,
    kind: str,
    ranks: int,
    workers: int,
    num_steps: int,
    kill_at: int | None,
    method: str = "fork",
) -> None:
    """Continue from the run's checkpoint to the end, or send SIGKILL to this process at moment `kill_at`.

    Moments are counted after every micro-batch and around every write. RUN/log has a line per step with the digests
    of its micro-batches. At the next start, lines after the checkpoint are cut off: a trainer would train those
    steps again.
    """
    multiprocessing.set_start_method(method, force=True)
    os.setpgid(0, 0)  # to find the workers that it leaves behind
    moments = 0

    def pass_moment() -> None:
        nonlocal moments
        moments += 1
        if moments == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    data = make_data_module(Path(folder), kind)
    run_folder = Path(folder) / run
    run_folder.mkdir(exist_ok=True)
    checkpoint = run_folder / "checkpoint"
    state = json.loads(checkpoint.read_text()) if checkpoint.exists() else {"step": 0, "index": 0, "log": 0}
    loaders = [
        iter(
            Loader(
                TrainingMicroBatches(data.training),
                TrainingOrders(data.steps, rank, ranks, state["step"], state["index"], num_steps),
                num_steps * MICRO_BATCHES,
                workers,
                pin_memory=False,
            )
        )
        for rank in range(ranks)
    ]
    with (run_folder / "log").open("a+", encoding="ascii") as log:
        log.truncate(state["log"])
        for step in range(state["step"], num_steps):
            digests = []
            for _ in range(MICRO_BATCHES // ranks):
                for loader in loaders:
                    batch = next(loader)
                    digests.append(digest_batch(batch))
                    pass_moment()
            at = batch.progress
            log.write(json.dumps([step, at.step, at.next_step, at.next_index, *digests]) + "\n")
            log.flush()
            pass_moment()
            if (
                batch.progress.next_step % STEPS_BETWEEN_CHECKPOINTS == 0
                or batch.progress.next_step == num_steps
            ):
                state = {
                    "step": batch.progress.next_step,
                    "index": batch.progress.next_index,
                    "log": log.tell(),
                }
                checkpoint.with_suffix(".new").write_text(json.dumps(state))
                pass_moment()
                checkpoint.with_suffix(".new").replace(checkpoint)
                pass_moment()


def digest_batch(batch: Batch) -> str:
    """Return a hash of everything that the model would receive."""
    digest = hashlib.blake2b(digest_size=8)
    tensors = [batch.inputs.input_ids, batch.inputs.lengths, batch.labels, batch.part]
    tensors += [group.prepared for group in batch.inputs.media]
    for tensor in tensors:
        digest.update(repr(tuple(tensor.shape)).encode() + tensor.numpy().tobytes())
    digest.update(
        repr((batch.progress.num_targets, batch.num_ids, sorted(batch.drawn.items()), batch.skipped)).encode()
    )
    return digest.hexdigest()
