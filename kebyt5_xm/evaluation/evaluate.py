"""A run's held-out examples, answered and judged once more in one process: RUN/evaluation.json and predictions.jsonl.

evaluation.json    date, checkpoint, step, hardware, seconds, generated_bytes_per_second, confidence, resamples
    sources.NAME   examples answered and skipped, how many of those are counted_as_wrong, labels, modalities,
                   malformed (share of the answers that are no UTF-8), metrics with their intervals; modality_use and
                   robustness where they were measured
    bits_per_byte  of every held-out part
predictions.jsonl  for every answer: source, row, path, line, prompt, references, prediction, probabilities, right;
                   a byte that is no UTF-8 is a lone surrogate, \\udc80 to \\udcff
"""

import copy
import datetime
import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from tqdm import tqdm

from kebyt5_xm.data.batch import Batch
from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.data.media.address import is_inline
from kebyt5_xm.data.media.interface import MediaInterface
from kebyt5_xm.data.media.reference import contents
from kebyt5_xm.data.sources.manifest_source import Manifest
from kebyt5_xm.data.sources.template import Slot
from kebyt5_xm.durable import durable_file
from kebyt5_xm.errors import UserError
from kebyt5_xm.evaluation import PROBED_EXAMPLES
from kebyt5_xm.evaluation.judging import Judged, Judging
from kebyt5_xm.evaluation.plain_values import plain
from kebyt5_xm.evaluation.probing import probed
from kebyt5_xm.evaluation.tally import Tally
from kebyt5_xm.metrics import ExactMatch, score
from kebyt5_xm.metrics.bootstrap import CONFIDENCE, RESAMPLES
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.device import device_name, enough_memory, usable_device
from kebyt5_xm.model.network import teacher_forced, token_losses
from kebyt5_xm.model.runs.checkpoint_reading import checkpoint_step
from kebyt5_xm.model.runs.run import Run
from kebyt5_xm.model.saving import load_run
from kebyt5_xm.trust import held_to_trust

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass
class Evaluation:
    """A model beside the data of its run, ready to be asked."""

    model: CrossModalT5
    data: DataModule

    @classmethod
    def of(
        cls, run: Run, data: DataModule, device: str = "cpu", trusted_modules: Sequence[str] = ()
    ) -> "Evaluation":
        """Open a run's chosen, best or last checkpoint, and connect `data`, the run's, to it.

        Raises `UserError` for what cannot be opened, and for classes of packages that are not trusted.
        """
        held_to_trust(run.config, trusted_modules)
        where = usable_device(device)
        model = load_run(CrossModalT5, run, trusted_modules)
        with enough_memory(where, "end what else computes there"):
            model = model.to(where)  # pyright: ignore[reportArgumentType]
        interfaces = media_interfaces(model)
        data.prepare(interfaces)
        data.connect(interfaces)
        return cls(model, data)

    def batches(self, number: int) -> Iterator[Batch]:
        """Yield the micro-batches of validation part `number`, on the model's device."""
        for batch in self.data.validation_loader(number):
            yield batch.to(self.model.device)

    @torch.no_grad()
    def run(self) -> tuple[list[Judged], dict[str, float], float]:
        """Return the judged answers, the bits per byte of every held-out part, and the seconds spent answering."""
        data, model = self.data, self.model
        judging = Judging(data)
        tally = Tally(len(data.validation), model.device)
        seconds = 0.0
        total = sum(part.num_rows for part in data.validation.parts)
        with tqdm(total=total, unit=" examples", desc="held out", disable=None) as bar:
            for number in range(len(data.validation)):
                answering = judging.answering(number)
                for batch in self.batches(number):
                    output = teacher_forced(model, batch.inputs, batch.labels)
                    tally.add(batch, token_losses(output.logits, batch.labels))
                    assert batch.row is not None
                    if answering is not None:
                        started = time.perf_counter()
                        judging.add(
                            number,
                            batch,
                            answering.answers(model, output.states, output.mask, batch.row >= 0),
                        )
                        seconds += time.perf_counter() - started
                    bar.update(int((batch.row >= 0).sum()))
        parts, _ = tally.totals()
        figures = zip(data.validation.names, parts, strict=True)
        bits = {name: part.bits_per_byte for name, part in figures if part.bytes}
        return judging.judged(), bits, seconds

    def number(self, part: Judged) -> int:
        """Return the number of a part among the data's validation parts."""
        return self.data.validation.names.index(part.name)

    def prompt(self, name: str, row: int) -> list[Any]:
        """Return a held-out row's prompt as plain values: texts, and what names each medium."""
        source = self._manifest(name)
        assert source.held_out is not None
        segments, slots = [], 0
        for segment in source.maker.segments(source.held_out, row):
            if isinstance(segment, Slot):
                media = source.maker.interfaces[segment.modality].media
                is_content = isinstance(segment.reference, bytes) or is_inline(str(segment.reference))
                reference = "" if is_content else str(segment.reference)
                segments.append(
                    {
                        "modality": segment.modality,
                        "media": media,
                        "reference": reference,
                        "source": name,
                        "row": row,
                        "slot": slots,
                    }
                )
                slots += 1
            else:
                segments.append(segment)
        return segments

    def medium(self, segment: dict[str, Any]) -> bytes | None:
        """Return the bytes of a medium that a prompt names, None where it cannot be had any more."""
        try:
            source = self._manifest(segment["source"])
            assert source.held_out is not None
            segments = source.maker.segments(source.held_out, segment["row"])
            slots = [s for s in segments if isinstance(s, Slot)]
            return contents(source.readable(slots[segment["slot"]].reference, source.held_out))
        except (UserError, IndexError, KeyError):
            return None

    def _manifest(self, name: str) -> Manifest:
        source = self.data.sources[name]
        assert isinstance(source, Manifest)
        return source


def media_interfaces(model: CrossModalT5) -> dict[str, MediaInterface]:
    """Return the data side of a model's modalities, without its weights."""
    return {
        name: replace(interface, adapter=copy.deepcopy(interface.adapter).to("meta"))
        for name, interface in model.processor.interfaces.items()
    }


def evaluate(
    run: Run,
    data: DataModule,
    device: str = "cpu",
    trusted_modules: Sequence[str] = (),
    num_probed: int = PROBED_EXAMPLES,
    with_robustness: bool = False,
) -> Evaluation:
    """Evaluate a run, write its evaluation.json and predictions.jsonl, and return what was opened for it.

    The use of modalities, and robustness if asked for, are measured over the first `num_probed` held-out examples of
    each source (see `kebyt5_xm.evaluation.probing`). Raises `UserError` as `Evaluation.of`.
    """
    evaluation = Evaluation.of(run, data, device, trusted_modules)
    started = time.perf_counter()
    judged, bits, answering = evaluation.run()
    written = sum(len(answer.text.encode("utf-8", "replace")) for part in judged for answer in part.answers)
    checkpoint = run.checkpoint()
    result = {
        "date": datetime.date.today().isoformat(),
        "checkpoint": checkpoint.name,
        "step": checkpoint_step(checkpoint),
        "hardware": device_name(evaluation.model.device),
        "confidence": CONFIDENCE,
        "resamples": RESAMPLES,
        "sources": {
            part.name: figures(evaluation, part)
            | probed(evaluation.model, evaluation.data, evaluation.number(part), num_probed, with_robustness)
            for part in judged
        },
        "bits_per_byte": bits,
        "generated_bytes_per_second": written / answering if answering else None,
        "seconds": round(time.perf_counter() - started, 1),
    }
    with durable_file(run.path / "predictions.jsonl") as file:
        for part in judged:
            for line in predictions(evaluation, part):
                sound = not _SURROGATE.search(line["prediction"])
                file.write((json.dumps(line, ensure_ascii=not sound) + "\n").encode())
    with durable_file(run.path / "evaluation.json") as file:
        file.write((json.dumps(plain(result), indent=2, ensure_ascii=False) + "\n").encode())
    return evaluation


def figures(evaluation: Evaluation, part: Judged) -> dict[str, Any]:
    """Return a part's metrics with their intervals, and how much was answered."""
    number = evaluation.number(part)
    source = evaluation.data.validation.source(number)
    num_rows = evaluation.data.validation.parts[number].num_rows
    malformed = sum(not written.valid for written in part.written)
    return {
        "examples": len(part.rows),
        "skipped": num_rows - len(part.rows),
        "counted_as_wrong": len(part.missed),
        "labels": list(source.labels) if source.labels else None,
        "modalities": list(source.prompt.modalities) if isinstance(source, Manifest) else [],
        "malformed": malformed / len(part.rows) if part.rows else None,
        "metrics": {
            metric.name: {
                **score(metric, part.counted).as_dict(),
                "higher_is_better": metric.higher_is_better,
            }
            for metric in part.metrics
        },
    }


def predictions(evaluation: Evaluation, part: Judged) -> Iterator[dict[str, Any]]:
    """Yield the lines of predictions.jsonl of a part."""
    number = evaluation.number(part)
    source = evaluation.data.validation.source(number)
    for row, answer, written in zip(part.rows, part.answers, part.written, strict=True):
        held_out = source.held_out if isinstance(source, Manifest) else None
        path, line = held_out.place(row) if held_out is not None else ("", row + 1)
        yield {
            "source": part.name,
            "row": row,
            "path": path,
            "line": line,
            "prompt": evaluation.prompt(part.name, row) if held_out is not None else [],
            "references": list(answer.references),
            "prediction": written.escaped,
            "probabilities": dict(answer.probabilities) or None,
            "right": bool(ExactMatch().figure(answer)),
        }
