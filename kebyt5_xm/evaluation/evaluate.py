"""Evaluates a model on held-out examples in one process, and writes evaluation.json and predictions.jsonl.

evaluation.json    date, checkpoint, step, hardware, seconds, generated_bytes_per_second, confidence, resamples
    sources.NAME   examples answered and skipped, how many of those are counted_as_wrong, labels, modalities,
                   malformed (share of the answers that are not UTF-8), repetition (share of those that end in one
                   phrase over and over), metrics with intervals; modality_use, robustness and baselines if measured
    bits_per_byte  of every held-out part
predictions.jsonl  for every answer: source, row, path, line, prompt, references, prediction, probabilities, right,
                   confidence, ended (see docs/pseudo_labels.md); a byte that is not UTF-8 is a lone surrogate,
                   \\udc80 to \\udcff
"""

import copy
import datetime
import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from kebyt5_xm.data.batch import Batch
from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.data.media.address import is_data_url
from kebyt5_xm.data.media.excerpt import Excerpt
from kebyt5_xm.data.media.interface import MediaInterface
from kebyt5_xm.data.media.reference import Readable, read_contents
from kebyt5_xm.data.sources.template import MediaSegment
from kebyt5_xm.durable import durable_file
from kebyt5_xm.evaluation import PROBED_EXAMPLES
from kebyt5_xm.evaluation.baselines.beside import BaselineChoice, Beside
from kebyt5_xm.evaluation.evaluation_file import EvaluationFile, MetricScore, SourceEvaluation
from kebyt5_xm.evaluation.judging import JudgedPart, Judging
from kebyt5_xm.evaluation.probing import probed
from kebyt5_xm.evaluation.tally import Tally
from kebyt5_xm.metrics import ExactMatch, score
from kebyt5_xm.metrics.bootstrap import CONFIDENCE, RESAMPLES
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.device import device_name, explain_out_of_memory, open_device
from kebyt5_xm.model.network import teacher_force, token_losses
from kebyt5_xm.model.runs.checkpoint_reading import checkpoint_step
from kebyt5_xm.model.runs.run import Run
from kebyt5_xm.model.saving import load_run
from kebyt5_xm.trust import check_trusted
from kebyt5_xm.vocabulary import render

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass
class Evaluation:
    """A model and held-out data, connected."""

    model: CrossModalT5
    data: DataModule

    @classmethod
    def of(
        cls, run: Run, data: DataModule, device: str = "cpu", trusted_modules: Sequence[str] = ()
    ) -> "Evaluation":
        """Load a run's chosen, best or last checkpoint, and connect the run's `data` to it.

        Raises `UserError` if it cannot be loaded, and for classes of packages that are not trusted.
        """
        check_trusted(run.config, trusted_modules)
        where = open_device(device)
        model = load_run(CrossModalT5, run, trusted_modules)
        return cls.connected(model, data, where)

    @classmethod
    def connected(cls, model: CrossModalT5, data: DataModule, device: torch.device) -> "Evaluation":
        """Move a model to `device` and connect `data` to it. Raises `UserError` if they do not fit."""
        with explain_out_of_memory(device, "end what else computes there"):
            model = model.to(device)  # pyright: ignore[reportArgumentType]
        interfaces = media_interfaces(model)
        data.prepare(interfaces)
        data.connect(interfaces)
        return cls(model, data)

    def batches(self, number: int) -> Iterator[Batch]:
        """Yield the micro-batches of validation part `number`, on the model's device."""
        for batch in self.data.validation_loader(number):
            yield batch.to(self.model.device)

    @torch.no_grad()
    def run(self) -> tuple[list[JudgedPart], dict[str, float], float]:
        """Return the judged answers, the bits per byte of every held-out part, and the seconds of generation."""
        data, model = self.data, self.model
        judging = Judging(data, with_confidence=True)
        tally = Tally(len(data.validation), model.device)
        seconds = 0.0
        total = sum(part.num_rows for part in data.validation.parts)
        with tqdm(total=total, unit=" examples", desc="held out", disable=None) as bar:
            for number in range(len(data.validation)):
                is_judged = judging.answering(number) is not None
                for batch in self.batches(number):
                    output = teacher_force(model, batch.inputs, batch.labels)
                    tally.add(batch, token_losses(output.logits, batch.labels))
                    assert batch.row is not None
                    if is_judged:
                        started = time.perf_counter()
                        judging.answer(model, number, batch, output)
                        seconds += time.perf_counter() - started
                    bar.update(int((batch.row >= 0).sum()))
        parts, _ = tally.totals()
        figures = zip(data.validation.names, parts, strict=True)
        bits = {name: part.bits_per_byte for name, part in figures if part.bytes}
        return judging.judge(), bits, seconds

    def number(self, part: str) -> int:
        """Return the number of a part, given its name, among the data's validation parts."""
        return self.data.validation.names.index(part)

    def prompt(self, part: str, row: int) -> list[Any]:
        """Return a held-out row's prompt as plain values: texts, and a mapping for each medium.

        Without prompts it is the text of the example's input.
        """
        number, validation = self.number(part), self.data.validation
        prompts = validation.prompts(number)
        if prompts is None:
            return [render(validation.example(number, row).input_ids, validation.sentinels(number))]
        segments, slots = [], 0
        for segment in prompts.segments(row):
            if isinstance(segment, MediaSegment):
                file, times = segment.reference, {}
                if isinstance(file, Excerpt):
                    file, times = file.source, {"offset": file.start, "duration": file.seconds}
                is_content = isinstance(file, bytes) or is_data_url(str(file))
                segments.append(
                    {
                        "modality": segment.modality,
                        "media": self.data.interfaces[segment.modality].media,
                        "reference": "" if is_content else str(file),
                        **times,
                        "source": part,
                        "row": row,
                        "slot": slots,
                    }
                )
                slots += 1
            else:
                segments.append(segment)
        return segments

    def medium(self, segment: dict[str, Any]) -> Readable | None:
        """Return the bytes of a medium in a prompt, or its excerpt; None if it cannot be read any more."""
        try:
            prompts = self.data.validation.prompts(self.number(segment["source"]))
            assert prompts is not None
            slots = [s for s in prompts.segments(segment["row"]) if isinstance(s, MediaSegment)]
            readable = prompts.readable(slots[segment["slot"]].reference)
            return readable if isinstance(readable, Excerpt) else read_contents(readable)
        except (ValueError, IndexError, KeyError):  # a UserError is a ValueError
            return None


def media_interfaces(model: CrossModalT5) -> dict[str, MediaInterface]:
    """Return the data side of a model's modalities, without weights."""
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
    baselines: BaselineChoice | None = None,
) -> Evaluation:
    """Evaluate a run, write its evaluation.json and predictions.jsonl, and return the model with its data.

    Use of modalities, and robustness if requested, are measured on the first `num_probed` held-out examples of each
    source (see `kebyt5_xm.evaluation.probing`); simple baselines as `baselines` says, by default not at all.
    Raises `UserError` as `Evaluation.of`.
    """
    evaluation = Evaluation.of(run, data, device, trusted_modules)
    checkpoint = run.checkpoint()
    step = checkpoint_step(checkpoint)
    write_evaluation(evaluation, run.path, checkpoint.name, step, num_probed, with_robustness, baselines)
    return evaluation


def write_evaluation(
    evaluation: Evaluation,
    folder: Path,
    checkpoint: str | None,
    step: int | None,
    num_probed: int = PROBED_EXAMPLES,
    with_robustness: bool = False,
    baselines: BaselineChoice | None = None,
) -> EvaluationFile:
    """Evaluate, write evaluation.json and predictions.jsonl into `folder`, and return the content of the first.

    `checkpoint` and `step` are of the run that the model comes from, None for other models.
    """
    started = time.perf_counter()
    judged, bits, answering = evaluation.run()
    beside = Beside(evaluation.model, evaluation.data, baselines or BaselineChoice("off"), folder)
    written = sum(len(answer.text.encode("utf-8", "replace")) for part in judged for answer in part.answers)
    result = EvaluationFile(
        date=datetime.date.today().isoformat(),
        checkpoint=checkpoint,
        step=step,
        hardware=device_name(evaluation.model.device),
        confidence=CONFIDENCE,
        resamples=RESAMPLES,
        sources={
            part.name: replace(
                figures(evaluation, part),
                **probed(
                    evaluation.model,
                    evaluation.data,
                    evaluation.number(part.name),
                    num_probed,
                    with_robustness,
                ),
                baselines=beside.measure(evaluation.number(part.name), part),
            )
            for part in judged
        },
        bits_per_byte=bits,
        generated_bytes_per_second=written / answering if answering else None,
        seconds=round(time.perf_counter() - started, 1),
    )
    with durable_file(folder / "predictions.jsonl") as file:
        for part in judged:
            for line in predictions(evaluation, part):
                sound = not _SURROGATE.search(line["prediction"])
                file.write((json.dumps(line, ensure_ascii=not sound) + "\n").encode())
    result.write(folder / "evaluation.json")
    return result


def figures(evaluation: Evaluation, part: JudgedPart) -> SourceEvaluation:
    """Return a part's metrics with their intervals, and its counts."""
    number = evaluation.number(part.name)
    source = evaluation.data.validation.source(number)
    num_rows = evaluation.data.validation.parts[number].num_rows
    malformed = sum(not written.valid for written in part.written)
    repeating = sum(written.repeats for written in part.written)
    return SourceEvaluation(
        examples=len(part.rows),
        skipped=num_rows - len(part.rows),
        counted_as_wrong=len(part.missed),
        labels=list(source.labels) if source.labels else None,
        modalities=source.modalities,
        malformed=malformed / len(part.rows) if part.rows else None,
        repetition=repeating / len(part.rows) if part.rows else None,
        metrics={
            metric.name: MetricScore(score(metric, part.counted), metric.higher_is_better)
            for metric in part.metrics
        },
    )


def predictions(evaluation: Evaluation, part: JudgedPart) -> Iterator[dict[str, Any]]:
    """Yield the lines of predictions.jsonl of a part."""
    number = evaluation.number(part.name)
    for row, answer, written in zip(part.rows, part.answers, part.written, strict=True):
        path, line = evaluation.data.validation.place(number, row)
        yield {
            "source": part.name,
            "row": row,
            "path": path,
            "line": line,
            "prompt": evaluation.prompt(part.name, row),
            "references": list(answer.references),
            "prediction": written.escaped,
            "probabilities": dict(answer.probabilities) or None,
            "right": bool(ExactMatch().figure(answer)),
            "confidence": written.confidence,
            "ended": written.ended and not written.repeats,
        }
