"""What the demo prints at its end: a table a stage, what a fresh run should give, and where things lie."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from demo.console import table
from demo.folder import FOLDER, RECIPES, RESULTS

NAMES = {"ko": "Korean", "en": "English", "zh": "Chinese", "ja": "Japanese"}
_EXPECTED = re.compile(r"^# expect +(?P<value>[\d.]+) \+- (?P<tolerance>[\d.]+)", re.MULTILINE)


def expected(recipe: Path) -> tuple[float, float]:
    """Return the number to expect and its tolerance from a recipe's header, its line `# expect`."""
    found = _EXPECTED.search(recipe.read_text(encoding="utf-8"))
    assert found, f"{recipe} does not say what to expect"
    return float(found["value"]), float(found["tolerance"])


def restored(text: dict[str, Any]) -> str:
    """Return the table of gaps that the exported model filled."""
    rows = [
        (NAMES[gap["language"]], f"{gap['before']}⟨…⟩{gap['after']}", _one_line(gap["wrote"]), gap["was"])
        for gap in text["restored"]
    ]
    return table(("", "held-out text with a gap", "the model wrote", "there was"), rows, text_columns=4)


def text_table(text: dict[str, Any]) -> str:
    """Return the table of bits per byte by language."""
    header = ("bits per byte", "step 0", f"step {text['step']}", "uniform", "unigram", "bigram")
    keys = ("bits_per_byte_before", "bits_per_byte", "uniform", "unigram", "bigram")
    rows = [
        (
            NAMES[language],
            *(part[key] for key in keys),
            f"{part['train_bytes'] / 1000:.0f} kB",
            f"{part['heldout_bytes'] / 1000:.0f} kB",
        )
        for language, part in text["languages"].items()
    ]
    total = ("all", text["bits_per_byte_before"], text["bits_per_byte"], None, None, None, "", "")
    return table((*header, "train", "held out"), [*rows, total])


def text_summary(text: dict[str, Any]) -> Iterator[str]:
    """Yield the lines on text pretraining."""
    yield (
        f"{text['parameters'] / 1e6:.2f} M parameters, {text['steps']} steps of {text['global_batch_size']} x "
        f"{text['chunk_bytes']} bytes, {text['bytes_per_second'] / 1000:.1f} kB/s on {text['hardware']}"
    )
    yield ""
    yield text_table(text)
    yield "uniform, unigram, bigram: entropies of the same held-out bytes, what counting bytes or pairs reaches"
    value, tolerance = expected(RECIPES / "text.yaml")
    met = abs(text["bits_per_byte"] - value) <= tolerance
    yield (
        f"expected {value:.2f} +- {tolerance:.2f} for all languages together, found {text['bits_per_byte']:.2f}: "
        + ("as expected" if met else "NOT as expected")
    )
    yield ""
    yield f"run     {text['run']}  (curves: tensorboard --logdir {FOLDER}; samples of every validation)"
    yield f"export  {text['export']}  (T5ForConditionalGeneration.from_pretrained loads it; its README.md says how)"


def ending(figures: dict[str, Any]) -> str:
    """Return the demo's last lines."""
    lines = [*text_summary(figures["text"])]
    parts = ", ".join(f"{name} {seconds:.0f}" for name, seconds in figures["text"]["seconds"].items())
    lines.append(f"figures {RESULTS}")
    lines.append(f"{figures['seconds']:.0f} s in all: imports {figures['imports']:.0f}, {parts}")
    return "\n".join(lines)


def _one_line(text: str) -> str:
    return text.replace("\n", "↵")
