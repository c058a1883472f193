"""RUN/results.json: the results of a run, written when training ends, for the model card and reports."""

import datetime
import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.data.order.plan import fingerprint
from kebyt5_xm.durable import durable_file
from kebyt5_xm.evaluation.entropies import measure_entropies
from kebyt5_xm.evaluation.json_numbers import to_json_values
from kebyt5_xm.model.device import device_name
from kebyt5_xm.model.runs.software import installed_versions
from kebyt5_xm.training.callbacks.forgetting import ForgettingMeter
from kebyt5_xm.training.callbacks.skips import Skips
from kebyt5_xm.training.callbacks.throughput import Throughput
from kebyt5_xm.training.memory import peak_memory


class ResultsWriter(pl.Callback):
    """Writes RUN/results.json when training ends, and logs the entropy baselines at every validation.

    Keys:
        date                  day on which training ended, ISO 8601
        steps                 optimizer steps trained
        global_batch_size     examples of one step
        parameters            of the whole model; trainable_parameters counts those that train
        train_seconds         time spent training, without validation (since the last resume)
        device_hours          train_seconds on every rank, in hours
        peak_memory_gb        peak memory of rank 0, in 1e9 bytes; `peak_memory_of` says what is counted
        bytes_per_second      input and target ids trained on per second, over all ranks
        hardware              processor or accelerator, and how many ranks
        precision, strategy   Lightning's names
        loss, bits_per_byte   of the last validation, over all held-out parts together
        parts.NAME            bits_per_byte and loss of a held-out part, with `uniform`, `unigram` and `bigram`:
                              the entropies of the same held-out bytes, in bits per byte
        skipped.NAME          examples of a training part that could not be made, `skipped` of `drawn` (since the last
                              resume); RUN/skipped.jsonl lists them
        epochs.NAME           passes over the rows of a training part
        length_table_seconds  time spent on measuring lengths before training; 0 if they were stored already
        forgetting.NAME       bits per byte of held-out text at the `start`, at the `end` and at their `worst`
        data_fingerprint      digest of everything that decides which examples are seen
        data                  what it is a digest of: the rows, share and digest of every training part, and settings
        held_out.NAME         `rows` and `digest` of a held-out part
        software              versions of the packages that train
    """

    def __init__(
        self, data: DataModule, throughput: Throughput, skips: Skips, forgetting: ForgettingMeter
    ) -> None:
        self.data = data
        self.throughput, self.skips, self.forgetting = throughput, skips, forgetting
        self.baselines: dict[str, dict[str, float]] = {}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        data = self.data
        for number, name in enumerate(data.validation.names):
            held_out = data.validation.raw_bytes(number)
            if len(held_out):
                found = measure_entropies(held_out)
                self.baselines[name] = {
                    "uniform": found.uniform,
                    "unigram": found.unigram,
                    "bigram": found.bigram,
                }

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for name, values in self.baselines.items():
            for key, value in values.items():
                pl_module.log(f"baseline/{key}/{name}", value, rank_zero_only=True)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            path = Path(trainer.default_root_dir) / "results.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            found = to_json_values(self.results(trainer, pl_module))
            with durable_file(path) as file:
                file.write((json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())

    def results(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """Return the results; the docstring of the class lists the keys."""
        data, throughput = self.data, self.throughput
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        # Between passes, ZeRO 3 leaves empty tensors, which hold their size as `ds_numel`.
        sizes = [(getattr(p, "ds_numel", p.numel()), p.requires_grad) for p in pl_module.parameters()]
        peak, peak_of = peak_memory(trainer.strategy.root_device)
        return {
            "date": datetime.date.today().isoformat(),
            "steps": trainer.global_step,
            "global_batch_size": data.global_batch_size,
            "parameters": sum(size for size, _ in sizes),
            "trainable_parameters": sum(size for size, trainable in sizes if trainable),
            "train_seconds": round(throughput.total_seconds, 3),
            "device_hours": round(throughput.total_seconds * trainer.world_size / 3600, 7),
            "peak_memory_gb": round(peak, 3),
            "peak_memory_of": peak_of,
            "bytes_per_second": round(throughput.bytes_per_second),
            "hardware": f"{trainer.world_size} x {device_name(trainer.strategy.root_device)}",
            "precision": str(trainer.precision),
            "strategy": type(trainer.strategy).__name__,
            "loss": metrics.get("val/loss"),
            "bits_per_byte": metrics.get("val/bits_per_byte"),
            "parts": {
                name: {
                    "bits_per_byte": metrics.get(f"val/bits_per_byte/{name}"),
                    "loss": metrics.get(f"val/loss/{name}"),
                    **self.baselines.get(name, {}),
                }
                for name in data.validation.names
            },
            "skipped": {name: {"skipped": s, "drawn": d} for name, (s, d) in self.skips.totals.items() if s},
            "epochs": {name: round(epochs, 4) for name, epochs in data.cursor.epochs().items()},
            "length_table_seconds": round(data.length_table_seconds, 1),
            "forgetting": self.forgetting.parts,
            "data_fingerprint": fingerprint(data.description()),
            "data": data.description(),
            "held_out": {
                name: {"rows": part.num_rows, "digest": part.fingerprint}
                for name, part in zip(data.validation.names, data.validation.parts, strict=True)
            },
            "software": installed_versions(),
        }
