"""Examples that could not be made: a row each in RUN/skipped.jsonl, and a ceiling over which a run stops."""

import json
from collections import Counter
from pathlib import Path

import lightning.pytorch as pl
import torch

from kebyt5_xm.data.batch import Batch
from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.errors import UserError

LEAST_DRAWN = 1000
"""A source's share is judged as if at least so many of its examples had been drawn, so that one bad file among
the first ten does not end a run. Our own choice."""


class Skips(pl.Callback):
    """Appends {step, source, line, path, cause} to RUN/skipped.jsonl, and keeps count over all ranks.

    A file that two epochs have come across has two rows. `skipped/SOURCE` is logged where there are any. Raises
    `UserError` on every rank, at a logged step, once a source's share is over `data.max_skipped`.
    """

    def __init__(self) -> None:
        self.drawn: Counter[int] = Counter()
        self.skipped: Counter[int] = Counter()
        self.totals: dict[str, tuple[int, int]] = {}  # source -> (skipped, drawn), over all ranks

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        data: DataModule = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        self.drawn.update(batch.drawn)
        if batch.skipped:
            self.skipped.update(part for part, _ in batch.skipped)
            rows = [
                {
                    "step": batch.step,
                    "source": data.training.names[part],
                    "line": skip.line,
                    "path": skip.path,
                    "cause": skip.cause,
                }
                for part, skip in batch.skipped
            ]
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            with (Path(trainer.default_root_dir) / "skipped.jsonl").open("a", encoding="utf-8") as file:
                file.write(lines)
        every: int = trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        if batch.next_step > batch.step and (
            batch.next_step % every == 0 or batch.next_step == trainer.max_steps
        ):
            self._judge(trainer, data, batch.step)

    def _judge(self, trainer: pl.Trainer, data: DataModule, step: int) -> None:
        counts = torch.tensor(
            [[self.skipped[part], self.drawn[part]] for part in range(len(data.training.names))],
            device=trainer.strategy.root_device,
            dtype=torch.float32,
        )
        summed = trainer.strategy.reduce(counts, reduce_op="sum")
        assert isinstance(summed, torch.Tensor)
        self.totals = {
            name: (int(skipped), int(drawn))
            for name, (skipped, drawn) in zip(data.training.names, summed.tolist(), strict=True)
        }
        metrics = {f"skipped/{name}": s / d for name, (s, d) in self.totals.items() if s}
        for logger in trainer.loggers if metrics else []:
            logger.log_metrics(metrics, step)
        for name, (skipped, drawn) in self.totals.items():
            if skipped > data.max_skipped * max(drawn, LEAST_DRAWN):
                raise UserError(
                    f"{skipped} of {drawn} examples of '{name}' could not be made, more than data.max_skipped "
                    f"{data.max_skipped:g} allows; {Path(trainer.default_root_dir) / 'skipped.jsonl'} names them: "
                    "mend them, or raise data.max_skipped, and continue with --ckpt_path last"
                )
