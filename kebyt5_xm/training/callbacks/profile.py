"""A trace of ten optimizer steps: where their time goes. `--profile true` of `train.py fit`.

Needs no tools of a GPU's vendor. Profiled steps take longer, so their speed is no measure.
"""

from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info
from torch.profiler import ProfilerActivity, profile

from kebyt5_xm.data.batch import Batch

WARM_UP = 5
"""Steps before the trace: the first ones allocate memory, start data workers and compile."""
STEPS = 10
OPERATORS = 10
TRACE, TABLE = "trace.json.gz", "operators.txt"


class Profile(pl.Callback):
    """Writes a trace and a table of the operators that take most time into a folder, on the first rank.

    It begins after `WARM_UP` steps, or earlier in a run that would end before.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._profiler: profile | None = None
        self._first = self._last = 0  # steps to trace, the last one excluded

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._last = min(trainer.global_step + WARM_UP + STEPS, trainer.max_steps)
        self._first = max(trainer.global_step, self._last - STEPS)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        is_first = batch.progress.step == self._first and self._first < self._last
        if not trainer.is_global_zero or not is_first or self._profiler is not None:
            return
        on_gpu = pl_module.device.type == "cuda"
        self._profiler = profile(
            activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
        )
        self._profiler.start()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        if self._profiler is None or batch.progress.next_step < self._last:
            return
        profiler, self._profiler, self._last = self._profiler, None, self._first
        profiler.stop()
        self.folder.mkdir(parents=True, exist_ok=True)
        profiler.export_chrome_trace(str(self.folder / TRACE))
        device = "device" if pl_module.device.type == "cuda" else "cpu"
        table = profiler.key_averages().table(f"self_{device}_time_total", row_limit=OPERATORS)
        (self.folder / TABLE).write_text(table, encoding="utf-8")
        rank_zero_info(
            f"profile: steps {self._first + 1} to {batch.progress.next_step} are in {self.folder}: {TRACE}, for "
            f"https://ui.perfetto.dev or chrome://tracing, and the {OPERATORS} largest operators in {TABLE}"
        )

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        if self._profiler is not None:
            profiler, self._profiler = self._profiler, None
            profiler.stop()
