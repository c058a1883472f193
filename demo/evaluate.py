"""Scores a model on held-out images or recordings, and the best constant answers for comparison."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.text import LANGUAGES

BATCH_SIZE = 64
MAX_NEW_TOKENS = 40
"""Bytes; the longest target has 27."""
EXAMPLES_PER_LANGUAGE = 2


@dataclass(frozen=True)
class HeldOut:
    """Held-out items of one modality: the manifest and its columns."""

    modality: str
    manifest: Path
    media_column: str
    target_column: str

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.manifest.read_text(encoding="utf-8").splitlines()]


def evaluate(run: Path, held_out: HeldOut) -> dict[str, Any]:
    """Return the figures of the run's best checkpoint on all held-out items; keys as in `demo.report.Results`."""
    from kebyt5_xm.model.cross_modal import CrossModalT5

    model = CrossModalT5.from_pretrained(run)
    # recordings of similar length together
    rows = sorted(held_out.rows(), key=lambda row: row.get("seconds", 0))
    wrote: list[str] = []
    for start in range(0, len(rows), BATCH_SIZE):
        segments: list[Any] = [  # like the recipes' prompts: the medium, then the language
            [
                (held_out.modality, held_out.manifest.parent / row[held_out.media_column]),
                f" {row['language']}:",
            ]
            for row in rows[start : start + BATCH_SIZE]
        ]
        wrote += model.answer(segments, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
    return figures(rows, wrote, held_out.target_column, held_out.media_column)


def figures(
    rows: Sequence[dict], wrote: Sequence[str], target_column: str, media_column: str
) -> dict[str, Any]:
    """Return exact match and character error rate, by language and in total, and those of constant answers."""
    targets = [row[target_column] for row in rows]
    constants = {
        language: best_constants(
            [t for t, row in zip(targets, rows, strict=True) if row["language"] == language]
        )
        for language in LANGUAGES
    }
    languages, examples = {}, []
    for language in LANGUAGES:
        here = [n for n, row in enumerate(rows) if row["language"] == language]
        answers, references = [wrote[n] for n in here], [targets[n] for n in here]
        languages[language] = {
            "items": len(here),
            **scores(answers, references),
            "ignoring": _ignoring(constants, [rows[n] for n in here], references),
        }
        examples += [
            {"language": language, "file": rows[n][media_column], "wrote": wrote[n], "was": targets[n]}
            for n in here[:: max(1, len(here) // EXAMPLES_PER_LANGUAGE)][:EXAMPLES_PER_LANGUAGE]
        ]
    ignoring = _ignoring(constants, rows, targets)
    return {
        "items": len(rows),
        **scores(wrote, targets),
        "ignoring": ignoring,
        "languages": languages,
        "examples": examples,
    }


def scores(wrote: Sequence[str], targets: Sequence[str]) -> dict[str, float]:
    """Return the share of exact matches, and the edits of `wrote` per character of the targets."""
    from torchmetrics.functional.text import char_error_rate

    exact = sum(a == b for a, b in zip(wrote, targets, strict=True)) / len(targets)
    return {"exact_match": exact, "character_error_rate": float(char_error_rate(list(wrote), list(targets)))}


def best_constants(targets: Sequence[str]) -> tuple[str, str]:
    """Return the one answer with the most exact matches, and the one with the fewest edits."""
    most_frequent = Counter(targets).most_common(1)[0][0]
    fewest_edits = min(
        sorted(set(targets)),
        key=lambda answer: scores([answer] * len(targets), targets)["character_error_rate"],
    )
    return most_frequent, fewest_edits


def _ignoring(
    constants: dict[str, tuple[str, str]], rows: Sequence[dict], targets: Sequence[str]
) -> dict[str, float]:
    by_frequency = scores([constants[row["language"]][0] for row in rows], targets)
    by_edits = scores([constants[row["language"]][1] for row in rows], targets)
    return {
        "exact_match": by_frequency["exact_match"],
        "character_error_rate": by_edits["character_error_rate"],
    }
