"""Text pretraining: make stores, train by span denoising, export, and fill gaps in held-out text."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo import console
from demo.folder import DATA, EXPORTS, FOLDER, RECIPES
from demo.restore import Gap, cut_gaps, restore
from demo.text import CorpusFiles, write_corpora
from kebyt5_xm.commands import cli
from kebyt5_xm.data.sources.denoise import Denoising
from kebyt5_xm.model.runs.checkpoint_reading import checkpoint_step
from kebyt5_xm.model.runs.run import Run
from kebyt5_xm.training import cli as training

RECIPE = RECIPES / "text.yaml"
RUN = FOLDER / "text"
GAPS_PER_LANGUAGE = 3


@dataclass
class Clock:
    """Wall-clock seconds of named parts of a stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[part] = round(time.perf_counter() - start, 1)


def run(options: Sequence[str] = ()) -> dict[str, Any]:
    """Run the stage in an empty `runs/demo/` and return its figures, with the keys of `demo.report.Results`.

    `options` are added to the command line of `train.py`. Raises UserError if the extra `demo` is not installed.
    """
    clock = Clock()
    console.heading("text: corpora of four languages from installed packages, as byte stores")
    with clock("prepare"):
        corpora = prepare()
    console.heading("text: pretraining by span denoising")
    with clock("train"):
        train([RECIPE], options)
    console.heading("text: a folder for transformers, and gaps in held-out text that it fills")
    with clock("export"):
        folder = export(RUN)
    with clock("restore"):
        gaps = [gap for language, files in corpora.items() for gap in held_out_gaps(language, files)]
        wrote = restore(folder, gaps)
    restored = [
        {"language": g.language, "before": g.before, "after": g.after, "wrote": answer, "was": g.was}
        for g, answer in zip(gaps, wrote, strict=True)
    ]
    return (
        {"run": str(RUN), "export": str(folder)}
        | figures(corpora)
        | {
            "restored": restored,
            "seconds": clock.seconds,
        }
    )


def train(recipes: Sequence[Path], options: Sequence[str]) -> None:
    """Train with the merged recipes, and print the command."""
    words = [word for recipe in recipes for word in ("-c", recipe)]
    console.command("python", "train.py", "fit", *words, *options)
    training.main(["fit", *map(str, words), *options])


def export(run: Path) -> Path:
    """Export a run, print the command, and return the folder."""
    folder = EXPORTS / run.name
    console.command("kebyt5-xm", "export", run, "--out", folder)
    with console.hidden_summary():
        cli.run("export", [str(run), "--out", str(folder)])
    return folder


def prepare() -> dict[str, CorpusFiles]:
    """Write the corpora, and convert each file into a store at the recipe's path."""
    corpora = write_corpora(DATA)
    for language, files in corpora.items():
        for text in (files.train, files.heldout):
            words = ["text", text, "--out", text.with_suffix(""), "--language", language, "--workers", "1"]
            console.command("kebyt5-xm", "prepare", *words)
            with console.hidden_summary():
                cli.run("prepare", [str(word) for word in words])
    return corpora


def held_out_gaps(language: str, files: CorpusFiles) -> list[Gap]:
    lines = files.heldout.read_text(encoding="utf-8").split("\n")
    return cut_gaps(language, lines, GAPS_PER_LANGUAGE)


def figures(corpora: dict[str, CorpusFiles]) -> dict[str, Any]:
    """Return the run's figures, before its first step and at the step of the exported checkpoint."""
    run = Run(RUN)
    results = run.results()
    step = checkpoint_step(run.checkpoint())
    _, before = run.validation(0)
    _, after = run.validation(step)
    source = run.config["data"]["sources"]["text"]["init_args"]
    languages = {}
    for language, files in corpora.items():
        part = after[f"text/{language}"]
        languages[language] = {
            "train_documents": files.documents,
            "train_bytes": files.bytes,
            "heldout_documents": files.heldout_documents,
            "heldout_bytes": files.heldout_bytes,
            "bits_per_byte_before": before[f"text/{language}"]["bits_per_byte"],
            **{key: part[key] for key in ("bits_per_byte", "uniform", "unigram", "bigram")},
        }
    return {
        **{key: results[key] for key in ("steps", "global_batch_size", "parameters")},
        "chunk_bytes": Denoising.denoising(source).chunk_length,
        **{key: results[key] for key in ("bytes_per_second", "hardware")},
        "step": step,
        "bits_per_byte_before": before["all"]["bits_per_byte"],
        "bits_per_byte": after["all"]["bits_per_byte"],
        "languages": languages,
    }
