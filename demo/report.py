"""What the demo prints at its end: a table a stage, what a fresh run should give, and where things lie."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from demo.console import table
from demo.folder import DATA, FOLDER, RECIPES, RESULTS

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


def image_examples(image: dict[str, Any]) -> str:
    """Return the table of some held-out images and what the model wrote for them."""
    return _examples(image, "digits")


def joint_examples(joint: dict[str, Any]) -> str:
    """Return the table of some held-out images and recordings and what the model wrote for them."""
    return _examples(joint["image"], "digits") + "\n\n" + _examples(joint["speech"], "speech")


def _examples(held_out: dict[str, Any], data: str) -> str:
    rows = [
        (NAMES[e["language"]], str(DATA / data / e["file"]), _one_line(e["wrote"]), e["was"])
        for e in held_out["examples"]
    ]
    return table(("", "held out", "the model wrote", "right is"), rows, text_columns=4)


def media_table(joint: dict[str, Any]) -> str:
    """Return the table of exact match and character error rate, by modality and language."""
    header = ("held out", "", "items", "exact", "ignoring it", "edits a character", "ignoring it")
    rows = []
    for kind, name in (("image", "handwritten digits"), ("speech", "spoken numbers")):
        parts = joint[kind]["languages"] | {"all": joint[kind]}
        for language, part in parts.items():
            ignoring = part["ignoring"]
            rows.append(
                (
                    name if language == "ko" else "",
                    NAMES.get(language, language),
                    str(part["items"]),
                    f"{part['exact_match']:.1%}",
                    f"{ignoring['exact_match']:.1%}",
                    part["character_error_rate"],
                    ignoring["character_error_rate"],
                )
            )
    return table(header, rows, text_columns=2)


def forgetting_table(joint: dict[str, Any]) -> str:
    """Return the table of bits per byte of held-out text before and after images and speech."""
    before, after = joint["bits_per_byte_before"], joint["bits_per_byte"]
    rows = [(NAMES[language], before[language], after[language]) for language in before]
    return table(("bits per byte of held-out text", "text alone", "after images and speech"), rows)


def media_summary(image: dict[str, Any], joint: dict[str, Any]) -> Iterator[str]:
    """Yield the lines on images and speech."""
    yield media_table(joint)
    yield "ignoring it: the best single answer to each language, for whoever neither looks nor listens"
    yield ""
    yield forgetting_table(joint)
    for recipe, stage, found in (
        ("image", f"images after {image['steps']} steps", image["exact_match"]),
        ("speech", f"recordings after {joint['steps']} steps more", joint["speech"]["exact_match"]),
    ):
        value, tolerance = expected(RECIPES / f"{recipe}.yaml")
        met = "as expected" if abs(found - value) <= tolerance else "NOT as expected"
        yield f"expected {value:.2f} +- {tolerance:.2f} of held-out {stage} exact, found {found:.2f}: {met}"
    yield ""
    yield f"runs    {image['run']}, {joint['run']}"
    yield f"export  {joint['export']}  (try: kebyt5-xm generate {joint['export']} --audio a.wav --prompt ' ko:')"


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
    lines = [*text_summary(figures["text"]), "", *media_summary(figures["image"], figures["joint"])]
    lines.append(f"figures {RESULTS}")
    parts = ", ".join(
        f"{name} {sum(figures[name]['seconds'].values()):.0f}" for name in ("text", "image", "joint")
    )
    lines.append(f"{figures['seconds']:.0f} s in all: imports {figures['imports']:.0f}, {parts}")
    return "\n".join(lines)


def _one_line(text: str) -> str:
    return text.replace("\n", "↵")
