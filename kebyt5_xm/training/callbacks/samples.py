"""A table of held-out examples: input, the model's answer, and reference."""

from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from kebyt5_xm.data.batch import IGNORE_INDEX
from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.decoding import encode, greedy_decode
from kebyt5_xm.vocabulary import render


class SampleTable(pl.Callback):
    """Writes RUN/samples/step=N.md after every validation, and the same table to TensorBoard.

    Args:
        data: of the run.
        per_part: examples of every held-out part (at most `data.micro_batch_size`).
        max_length: the model writes at most this many ids, and the reference is cut to as many.
    """

    def __init__(self, data: DataModule, per_part: int = 1, max_length: int = 96) -> None:
        self.data = data
        self.per_part = per_part
        self.max_length = max_length

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit":
            return
        model: CrossModalT5 = pl_module.model  # pyright: ignore[reportAssignmentType]
        lines = ["| source | input | model | reference |", "|---|---|---|---|"]
        for number, name in enumerate(self.data.validation.names):
            batch = self.data.validation.first(number, self.per_part).to(pl_module.device)
            with torch.no_grad(), trainer.precision_plugin.forward_context():
                written = greedy_decode(model, *encode(model, batch.inputs), self.max_length)
            for row in range(len(written)):
                reference = batch.labels[row][batch.labels[row] != IGNORE_INDEX][: self.max_length]
                cells = [
                    render(ids.cpu().numpy().astype(np.int64), self.data.validation.sentinels(number))
                    for ids in (batch.inputs.input_ids[row], written[row], reference)
                ]
                lines.append("| " + " | ".join([name, *map(_cell, cells)]) + " |")
        if trainer.is_global_zero:
            self._write(trainer, "\n".join(lines) + "\n")

    def _write(self, trainer: pl.Trainer, table: str) -> None:
        path = Path(trainer.default_root_dir) / "samples" / f"step={trainer.global_step}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(table, encoding="utf-8")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text("samples", table, trainer.global_step)


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ⏎ ")
