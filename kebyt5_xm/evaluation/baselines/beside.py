"""Baselines beside a model's own scores: whether to measure them, and RUN/baselines.json, which keeps them.

An entry is used again while its key is the same: rows, prompts, targets, labels, metrics, held-out rows, and what
makes the vectors of media.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.durable import durable_file
from kebyt5_xm.errors import UserError
from kebyt5_xm.evaluation.baseline_scores import SimpleBaselines
from kebyt5_xm.evaluation.baselines import AUTO_ROWS, AUTO_SECONDS, When
from kebyt5_xm.evaluation.baselines.frozen_encoders import MakeEncoder, feature_makers
from kebyt5_xm.evaluation.baselines.media_features import FeatureMaker
from kebyt5_xm.evaluation.baselines.questions import TooSlow
from kebyt5_xm.evaluation.baselines.simple import (
    HeldOutRows,
    require_scikit_learn,
    simple_baselines,
    training_tables,
)
from kebyt5_xm.evaluation.judging import JudgedPart
from kebyt5_xm.model.cross_modal import CrossModalT5

_METHODS = 1
"""Raise it when a method changes, so that stored baselines are measured again."""


@dataclass(frozen=True)
class BaselineChoice:
    """When baselines are measured, and what builds the encoders as they were before training."""

    when: When = "auto"
    initial: Mapping[str, MakeEncoder] = field(default_factory=dict)


class Beside:
    """Measures the baselines of judged parts, or reads them from `folder`/baselines.json.

    Args:
        model: whose frozen encoders may be used.
        data: connected to it.
        choice: when to measure.
        folder: the run.
        tell: takes one line on each source that is left out.
    """

    def __init__(
        self,
        model: CrossModalT5,
        data: DataModule,
        choice: BaselineChoice,
        folder: Path,
        tell: Callable[[str], object] = print,
    ) -> None:
        self.model, self.data, self.choice = model, data, choice
        self.path = folder / "baselines.json"
        self.tell = tell
        self._is_possible = choice.when != "off"

    def measure(self, number: int, part: JudgedPart) -> SimpleBaselines | None:
        """Return the baselines of validation part `number` on the rows that the model answered; None if left out."""
        if not self._is_possible or not part.rows:
            return None
        try:
            require_scikit_learn()
        except UserError as error:
            self._is_possible = False
            self.tell(f"no baselines: {error}")
            return None
        try:
            return self._measure(number, part)
        except UserError as error:
            self.tell(f"{part.name}: no baselines: {error}")
        except TooSlow as slow:
            self.tell(
                f"{part.name}: no baselines: {slow}, limit {AUTO_SECONDS} s; --baselines on measures them anyway"
            )
        return None

    def _measure(self, number: int, part: JudgedPart) -> SimpleBaselines | None:
        validation = self.data.validation
        source, prompts = validation.source(number), validation.prompts(number)
        tables = training_tables(self.data, number)
        if prompts is None or not tables:
            return None  # a source of another kind, such as denoising
        if any(table.rows.fingerprint == prompts.rows.fingerprint for table in tables):
            raise UserError("the training rows are the held-out rows")
        total = sum(map(len, tables))
        if self.choice.when == "auto" and total > AUTO_ROWS:
            raise UserError(
                f"{total:,} training rows, limit {AUTO_ROWS:,}; --baselines on measures them anyway"
            )
        makers = feature_makers(self.model, source.modalities, self.choice.initial)
        key = self._key(number, part, makers)
        stored = self._stored()
        if (entry := stored.get(part.name)) and entry.get("key") == key:
            return SimpleBaselines.from_dict(entry["baselines"])
        references = [answer.references for answer in part.answers]
        with tqdm(unit=" media", desc=f"baselines of {part.name}", disable=None) as bar:
            found = simple_baselines(
                tables,
                HeldOutRows(prompts, part.rows, references, part.missed),
                part.metrics,
                source.labels,
                makers,
                longest=AUTO_SECONDS if self.choice.when == "auto" else None,
                progress=lambda done: bar.update(done - bar.n),
            )
        self._store({**stored, part.name: {"key": key, "baselines": found.as_dict()}})
        return found

    def _key(self, number: int, part: JudgedPart, makers: Mapping[str, FeatureMaker]) -> str:
        source, digest = self.data.validation.source(number), hashlib.blake2b(digest_size=16)
        held_out = self.data.validation.parts[number]
        what: Sequence[object] = (
            _METHODS,
            version("scikit-learn"),
            [(p.name, p.num_rows, p.fingerprint) for p in source.parts()],
            (held_out.name, held_out.fingerprint, part.rows, len(part.missed)),
            [answer.references for answer in part.answers],
            sorted(source.settings().items()),
            [
                (type(metric).__qualname__, metric.name, sorted(vars(metric).items()))
                for metric in part.metrics
            ],
            sorted((name, maker.name, maker.key) for name, maker in makers.items()),
        )
        for value in what:
            digest.update(repr(value).encode("utf-8", "backslashreplace") + b"\n")
        return digest.hexdigest()

    def _stored(self) -> dict[str, Any]:
        """Return source -> its entry; empty if the file is absent or cannot be read: it is made again."""
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _store(self, content: Mapping[str, Any]) -> None:
        with durable_file(self.path) as file:
            file.write((json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())
