"""Times of words in 100 recordings of 1 to 10 minutes, joined from the demo's held-out numbers.

    python -m demo                              # first: it makes the model and the numbers
    python -m benchmarks.long_recordings        # trains on long recordings, then measures
    python -m benchmarks.long_recordings --recordings 8 --run runs/demo/long

Numbers are said with pauses of 0.2 to 0.8 s; in a fifth as many recordings more, with pauses of up to 0.05 s, so
that windows overlap. Errors are those of the beginnings of words that are written where one is said, right or wrong.
At the edges of windows are counted: words that no window holds whole, words that stand twice since two windows wrote
them, and words that a window wrote and the transcript lacks.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.long_speech import RATE, Number, Said, join, read_numbers, write_excerpts
from benchmarks.report import write_report
from demo.folder import DATA, RECIPES
from demo.media_stages import JOINT_RECIPES
from demo.text import LANGUAGES
from demo.text_stage import train
from kebyt5_xm.errors import exit_on_user_error
from kebyt5_xm.metrics import WordErrorRate
from kebyt5_xm.metrics.metric import Answer
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.transcription.cutting import Cutting
from kebyt5_xm.model.transcription.transcriber import Transcriber
from kebyt5_xm.model.transcription.transcript import TimedWord
from kebyt5_xm.model.transcription.windows import Window

RUN = Path("runs/demo/long")
WINDOW_SECONDS = 3.0
"""Longest window: one to three numbers with their pauses, as in training."""
MINUTES = (1.0, 10.0)
PAUSES = {"pauses": (0.2, 0.8), "short_pauses": (0.02, 0.05)}
TOLERANCE = 0.03
"""Seconds that a word may reach over the end of a window that holds it: two frames of 10 ms, rounded."""


@dataclass
class Counts:
    """What was found in recordings."""

    seconds: float = 0.0
    words: int = 0
    errors: list[float] = field(default_factory=list)
    missed: int = 0
    extra: int = 0
    cut: int = 0
    doubled: int = 0
    lost: int = 0
    edges: int = 0
    overlaps: int = 0
    answers: list[Answer] = field(default_factory=list)

    def figures(self, seconds: float) -> dict[str, float]:
        """Return the figures, given the seconds that the transcription took."""
        errors = 1000 * np.array(self.errors)
        return {
            "hours": self.seconds / 3600,
            "words": self.words,
            "median_start_error_ms": float(np.median(errors)),
            "p95_start_error_ms": float(np.percentile(errors, 95)),
            "word_error_rate": WordErrorRate()(self.answers),
            "missed_words": self.missed,
            "extra_words": self.extra,
            "edges": self.edges,
            "edges_with_overlap": self.overlaps,
            "words_cut_at_edges": self.cut,
            "words_doubled_at_edges": self.doubled,
            "words_lost_at_edges": self.lost,
            "seconds_of_sound_per_s": self.seconds / seconds,
        }


class Watched(Transcriber):
    """A transcriber that remembers its windows and their words."""

    def transcribe(self, windows: Sequence[Window]) -> list[list[TimedWord]]:
        found = super().transcribe(windows)
        self.heard += zip(windows, found, strict=True)
        return found

    def __post_init__(self) -> None:
        super().__post_init__()
        self.heard: list[tuple[Window, list[TimedWord]]] = []


def main(words: Sequence[str] = ()) -> None:
    """Train, unless there is a run, and measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.long_recordings", description=__doc__)
    parser.add_argument("--recordings", type=int, default=100, help="recordings with pauses (100)")
    parser.add_argument("--run", type=Path, help="a run on long recordings; without it one is trained")
    args = parser.parse_args(list(words))
    if args.run is None:
        write_excerpts(DATA / "speech", DATA / "long")
        train((*JOINT_RECIPES, RECIPES / "long.yaml"), ())
    model = CrossModalT5.from_pretrained(args.run or RUN)
    numbers = {language: read_numbers(DATA / "speech" / "heldout.jsonl", language) for language in LANGUAGES}
    figures = {
        name: measure(model, numbers, count, pauses)
        for (name, pauses), count in zip(
            PAUSES.items(), (args.recordings, max(1, args.recordings // 5)), strict=True
        )
    }
    write_report(
        "long_recordings",
        {"recordings": args.recordings, "window_seconds": WINDOW_SECONDS, **figures},
    )


def measure(
    model: CrossModalT5, numbers: dict[str, list[Number]], count: int, pauses: tuple[float, float]
) -> dict[str, float]:
    """Return the figures of `count` recordings, in each language equally many."""
    random = np.random.default_rng(7)
    counts, taken = Counts(), 0.0
    languages = list(numbers)
    for number in range(count):
        language = languages[number % len(languages)]
        seconds = 60 * MINUTES[0] * (MINUTES[1] / MINUTES[0]) ** ((number + 0.5) / count)
        samples, said = join(numbers[language], seconds, pauses, random)
        transcriber = Watched(model, f"{{audio}} {language}:", Cutting(WINDOW_SECONDS), batch_size=16)
        begin = time.perf_counter()
        found = transcriber((samples, RATE))
        taken += time.perf_counter() - begin
        counts.seconds += len(samples) / RATE
        compare(counts, said, list(found.words), transcriber.heard)
        sys.stderr.write(f"\r{number + 1} of {count} recordings")
    sys.stderr.write("\n")
    return counts.figures(taken)


def compare(
    counts: Counts,
    said: Sequence[Said],
    written: Sequence[TimedWord],
    heard: Sequence[tuple[Window, list[TimedWord]]],
) -> None:
    """Add a recording to the counts."""
    counts.words += len(said)
    texts = (" ".join(word.text for word in words) for words in (written, said))
    counts.answers.append(Answer(next(texts), (next(texts),)))
    counts.edges += len(heard) - 1
    counts.overlaps += sum(
        after.start_seconds < before.stop_seconds for (before, _), (after, _) in pairwise(heard)
    )
    owners = {_key(word): place for place, (_, words) in enumerate(heard) for word in words}
    taken, kept = set[TimedWord](), {_key(word) for word in written}
    for word in said:
        claims = [other for other in written if _is_there(word, other)]
        free = [claim for claim in claims if claim not in taken]
        if free:
            best = min(free, key=lambda claim: abs(claim.start - word.start))
            taken.add(best)
            counts.errors.append(abs(best.start - word.start))
            others = [claim for claim in claims if claim is not best and claim.text == best.text]
            counts.doubled += any(owners[_key(other)] != owners[_key(best)] for other in others)
        else:
            counts.missed += 1
            counts.lost += any(
                other.text == word.text and _key(other) not in kept and _is_there(word, other)
                for _, words in heard
                for other in words
            )
        counts.cut += not any(
            window.start_seconds <= word.start + TOLERANCE and word.stop - TOLERANCE <= window.stop_seconds
            for window, _ in heard
        )
    counts.extra += len(written) - len(taken)


def _key(word: TimedWord) -> tuple[str, float]:
    """Return what joining leaves as it is: a word's times may be cut."""
    return word.text, word.confidence


def _is_there(word: Said, other: TimedWord) -> bool:
    """Return whether more than half of the shorter lies in the longer."""
    common = min(word.stop, other.stop) - max(word.start, other.start)
    return common > 0.5 * min(word.stop - word.start, other.stop - other.start)


if __name__ == "__main__":
    with exit_on_user_error():
        main(sys.argv[1:])
