"""The demo's figures as a file, and its printed tables: a table per stage, expected figures, and paths."""

import datetime
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo.console import table
from demo.folder import DATA, FOLDER, RECIPES, RESULTS

NAMES = {"ko": "Korean", "en": "English", "zh": "Chinese", "ja": "Japanese"}
_EXPECTED = re.compile(r"^# expect +(?P<value>[\d.]+) \+- (?P<tolerance>[\d.]+)", re.MULTILINE)


@dataclass
class Results:
    """The figures of one demo, written to `runs/demo/results.json` after every stage. Keys of the file:

    date                     day on which the demo ran, ISO 8601
    seconds                  from its start until this file was written; `imports`: the seconds that imports took
    text                     the stage of text pretraining:
      run, export            its folders
      steps                  optimizer steps, each of `global_batch_size` chunks of `chunk_bytes` raw bytes
      parameters             number of the model's parameters
      bytes_per_second       input and target ids trained per second
      hardware               processor and threads
      step                   step of the exported checkpoint; the figures below are its own
      bits_per_byte          of the removed spans of all held-out text; `bits_per_byte_before` at step 0
      languages.LANGUAGE     (ko, en, zh, ja) `train_documents`, `train_bytes`, `heldout_documents`,
                             `heldout_bytes`; `bits_per_byte` and `bits_per_byte_before` of its held-out
                             text; `uniform`, `unigram`, `bigram`: the entropies of the same held-out bytes
      restored[]             gaps in held-out lines, filled by the export: `language`, `before`, `after` (the text
                             around the gap), `wrote` (the model's text) and `was` (the original text)
      seconds.PART           wall-clock time of `prepare`, `train` (validations included), `export`, `restore`
    image                    the stage of digits and text: `run`, `steps`, `seconds.PART` (`data`, `train`,
                             `export`, `evaluate`), and the held-out images as below
    joint                    the stage with spoken numbers too: `run`, `export`, `steps`, `seconds`;
      bits_per_byte.LANGUAGE         of held-out text after this stage; `bits_per_byte_before`: after the text stage
      image, speech                  the held-out images and recordings:
        items                        their number
        exact_match                  share of exactly right answers, decoded greedily
        character_error_rate         edits per character of the right answer
        ignoring                     the same two figures of the best constant answer in each language: the most
                                     frequent one, and the one with the fewest edits
        languages.LANGUAGE           the same three figures for one language
        examples[]                   `language`, `file`, `wrote` (the model's text), `was` (the right one)
    """

    figures: dict[str, Any] = field(
        default_factory=lambda: {"date": datetime.date.today().isoformat(), "seconds": 0.0, "imports": 0.0}
    )

    def write(self, seconds: float, imports: float) -> None:
        """Write the figures so far."""
        self.figures |= {"seconds": round(seconds, 1), "imports": round(imports, 1)}
        text = json.dumps(self.figures, indent=2, ensure_ascii=False)
        RESULTS.write_text(text + "\n", encoding="utf-8")


def read_expected(recipe: Path) -> tuple[float, float]:
    """Return the expected number and its tolerance from the line `# expect` of a recipe's header."""
    match = _EXPECTED.search(recipe.read_text(encoding="utf-8"))
    assert match, f"{recipe} has no line '# expect NUMBER +- TOLERANCE'"
    return float(match["value"]), float(match["tolerance"])


def restored_table(text: dict[str, Any]) -> str:
    """Return the table of gaps that the exported model filled."""
    rows = [
        (NAMES[gap["language"]], f"{gap['before']}⟨…⟩{gap['after']}", _one_line(gap["wrote"]), gap["was"])
        for gap in text["restored"]
    ]
    return table(("", "held-out text with a gap", "the model wrote", "original"), rows, text_columns=4)


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
    """Return a table of some held-out images with the model's answers."""
    return _examples(image, "digits")


def joint_examples(joint: dict[str, Any]) -> str:
    """Return tables of some held-out images and recordings with the model's answers."""
    return _examples(joint["image"], "digits") + "\n\n" + _examples(joint["speech"], "speech")


def _examples(held_out: dict[str, Any], data: str) -> str:
    rows = [
        (NAMES[e["language"]], str(DATA / data / e["file"]), _one_line(e["wrote"]), e["was"])
        for e in held_out["examples"]
    ]
    return table(("", "held out", "the model wrote", "right answer"), rows, text_columns=4)


def media_table(joint: dict[str, Any]) -> str:
    """Return the table of exact match and character error rate, by modality and language."""
    header = ("held out", "", "items", "exact", "ignoring it", "edits per character", "ignoring it")
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
    yield "ignoring it: the best constant answer in each language, without looking or listening"
    yield ""
    yield forgetting_table(joint)
    for recipe, stage, measured in (
        ("image", f"images after {image['steps']} steps", image["exact_match"]),
        ("speech", f"recordings after {joint['steps']} more steps", joint["speech"]["exact_match"]),
    ):
        value, tolerance = read_expected(RECIPES / f"{recipe}.yaml")
        verdict = "as expected" if abs(measured - value) <= tolerance else "NOT as expected"
        yield f"expected {value:.2f} +- {tolerance:.2f} of held-out {stage} exact, found {measured:.2f}: {verdict}"
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
    yield "uniform, unigram, bigram: entropies of the same held-out bytes, from counts of bytes and pairs"
    value, tolerance = read_expected(RECIPES / "text.yaml")
    is_expected = abs(text["bits_per_byte"] - value) <= tolerance
    yield (
        f"expected {value:.2f} +- {tolerance:.2f} for all languages together, found {text['bits_per_byte']:.2f}: "
        + ("as expected" if is_expected else "NOT as expected")
    )
    yield ""
    yield f"run     {text['run']}  (curves: tensorboard --logdir {FOLDER}; samples of every validation)"
    yield f"export  {text['export']}  (T5ForConditionalGeneration.from_pretrained loads it; its README.md says how)"


def final_summary(figures: dict[str, Any]) -> str:
    """Return the demo's last lines."""
    lines = [*text_summary(figures["text"]), "", *media_summary(figures["image"], figures["joint"])]
    lines.append(f"figures {RESULTS}")
    parts = ", ".join(
        f"{name} {sum(figures[name]['seconds'].values()):.0f}" for name in ("text", "image", "joint")
    )
    lines.append(f"{figures['seconds']:.0f} s in total: imports {figures['imports']:.0f}, {parts}")
    lines += [
        "",
        "next: a page to try the model in a browser",
        f"  kebyt5-xm serve {figures['joint']['run']}",
    ]
    return "\n".join(lines)


def _one_line(text: str) -> str:
    return text.replace("\n", "↵")
