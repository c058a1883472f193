"""Text pretraining: corpora to stores, span denoising, export, and gaps filled by plain transformers."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from demo import console
from demo.folder import DATA, EXPORTS, FOLDER, RECIPES
from demo.restore import Gap, cut_gaps, restore
from demo.text import CorpusFiles, write_corpora
from kebyt5_xm.commands import cli
from kebyt5_xm.data.text.denoising import SpanDenoising
from kebyt5_xm.model.runs.checkpoint_reading import checkpoint_step
from kebyt5_xm.model.runs.run import Run
from kebyt5_xm.training import cli as training

RECIPE = RECIPES / "text.yaml"
RUN = FOLDER / "text"
EXPORT = EXPORTS / "text"
GAPS_A_LANGUAGE = 3


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
    """Run the stage in a fresh `runs/demo/` and return its figures; keys as in `demo.results`.

    `options` go to `train.py` behind the recipe. Raises UserError if the extra `demo` is not installed.
    """
    clock = Clock()
    console.heading("text: corpora of four languages from installed packages, as byte stores")
    with clock("prepare"):
        corpora = prepare()
    console.heading("text: pretraining by span denoising")
    with clock("train"):
        console.command("python", "train.py", "fit", "-c", RECIPE, *options)
        training.main(["fit", "-c", str(RECIPE), *options])
    console.heading("text: a folder for transformers, and gaps in held-out text that it fills")
    with clock("export"):
        console.command("kebyt5-xm", "export", RUN, "--out", EXPORT)
        with console.summary_left_out():
            cli.run("export", [str(RUN), "--out", str(EXPORT)])
    with clock("restore"):
        gaps = [gap for language, files in corpora.items() for gap in held_out_gaps(language, files)]
        wrote = restore(EXPORT, gaps)
    restored = [
        {"language": g.language, "before": g.before, "after": g.after, "wrote": answer, "was": g.was}
        for g, answer in zip(gaps, wrote, strict=True)
    ]
    return (
        {"run": str(RUN), "export": str(EXPORT)}
        | figures(corpora)
        | {
            "restored": restored,
            "seconds": clock.seconds,
        }
    )


def prepare() -> dict[str, CorpusFiles]:
    """Write the corpora, and a store of each of their files where the recipe looks for it."""
    corpora = write_corpora(DATA)
    for language, files in corpora.items():
        for text in (files.train, files.heldout):
            words = ["text", text, "--out", text.with_suffix(""), "--language", language, "--workers", "1"]
            console.command("kebyt5-xm", "prepare", *words)
            with console.summary_left_out():
                cli.run("prepare", [str(word) for word in words])
    return corpora


def held_out_gaps(language: str, files: CorpusFiles) -> list[Gap]:
    lines = files.heldout.read_text(encoding="utf-8").split("\n")
    return cut_gaps(language, lines, GAPS_A_LANGUAGE)


def figures(corpora: dict[str, CorpusFiles]) -> dict[str, Any]:
    """Return what the run recorded, before its first step and at the step of the exported checkpoint."""
    trained = Run(RUN)
    results = trained.results()
    step = checkpoint_step(trained.checkpoint())
    _, before = trained.validation(0)
    _, after = trained.validation(step)
    source = trained.config["data"]["sources"]["text"]["init_args"]
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
        "chunk_bytes": SpanDenoising(inputs_length=source["inputs_length"]).chunk_length,
        **{key: results[key] for key in ("bytes_per_second", "hardware")},
        "step": step,
        "bits_per_byte_before": before["all"]["bits_per_byte"],
        "bits_per_byte": after["all"]["bits_per_byte"],
        "languages": languages,
    }
