"""Recordings too short for CTC, whose transcripts have more bytes than frames: RUN/ctc_too_short.jsonl lists them.

They train the model without CTC. `ctc/too_short/MODALITY` is their logged share (`kebyt5_xm.training.ctc_loss`).
"""

from pathlib import Path

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.utilities import rank_zero_info

from kebyt5_xm.data.batch import Batch
from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.data.media.bad_sample import to_json_line
from kebyt5_xm.training.task import Task

FILE = "ctc_too_short.jsonl"


class TooShortForCTC(pl.Callback):
    """Appends {step, source, line, path, cause} for every such row, once per start of the run; prints the first."""

    def __init__(self, run: Path, task: Task, data: DataModule) -> None:
        self.path = run / FILE
        self.task, self.data = task, data
        self._known: set[tuple[int, int]] = set()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        transcripts = self.task.side_losses.ctc.transcripts
        if not any(found.too_short for found in transcripts.values()):
            return
        mine = self.data.steps.batch(self.task.step_start).micro_batches[
            trainer.global_rank :: trainer.world_size
        ]
        micro_batch = mine[batch_idx % trainer.accumulate_grad_batches]
        draws, packed = micro_batch.draws, micro_batch.packed_row
        order = np.arange(len(draws)) if packed is None else np.argsort(packed, kind="stable")
        rows = []
        for name, found in transcripts.items():
            for short in found.too_short:
                part, row = (int(of[order[short.number]]) for of in (draws.part, draws.row))
                if (part, row) in self._known:
                    continue
                self._known.add((part, row))
                path, line = self.data.training.place(part, row)
                source = self.data.training.names[part]
                cause = f"its '{name}' has {short.frames} frames for CTC, its transcript needs {short.needed}"
                rows.append({"source": source, "line": line, "path": path, "cause": cause})
        if not rows:
            return
        if len(self._known) == len(rows):
            first = rows[0]
            rank_zero_info(
                f"'{first['source']}', line {first['line']} of {first['path']}: {first['cause']}; such rows train "
                f"without CTC, and {self.path} lists them: raise frames_per_slot, or correct the transcripts"
            )
        with self.path.open("ab") as file:
            for row in rows:
                file.write(to_json_line({"step": batch.progress.step, **row}))
