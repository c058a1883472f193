"""The model cards of an export, in English and Korean: README.md and README.ko.md.

The text is in `templates`, under the headings of Hugging Face's own card. Facts that the run did not record are left
out or marked as not recorded.
"""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from kebyt5_xm.commands.export.facts import EXTRAS, RunFacts
from kebyt5_xm.commands.export.metadata import front_matter, run_metadata
from kebyt5_xm.commands.export.usage import cross_modal_code, sentinel_formula, text_code
from kebyt5_xm.model.runs.software import installed_versions

if TYPE_CHECKING:
    from jinja2 import Environment

    from kebyt5_xm.model.cross_modal import CrossModalT5

CARDS = {"README.md": "en", "README.ko.md": "ko"}
"""File of a card -> its language."""

CITATION = """```bibtex
@article{xue-etal-2022-byt5,
  title   = {{ByT5}: Towards a Token-Free Future with Pre-trained Byte-to-Byte Models},
  author  = {Xue, Linting and Barua, Aditya and Constant, Noah and Al-Rfou, Rami and Narang, Sharan and
             Kale, Mihir and Roberts, Adam and Raffel, Colin},
  journal = {Transactions of the Association for Computational Linguistics},
  volume  = {10},
  year    = {2022}
}
```"""

PHRASES: dict[str, dict[str, str]] = {
    "en": {
        "denoising": "span denoising",
        "prompts": "the target text after its prompt",
        "both": "{denoising}, and {prompts}",
        "unknown": "not recorded",
        "loss": "`loss`: nats per target id.",
        "bits_per_byte": "`bits_per_byte`: of the bytes to write; of removed text in span denoising.",
        "baselines": "`uniform`, `unigram` and `bigram`, for comparison: the entropies of the same held-out bytes, "
        "in bits per byte, of all bytes alike, of single bytes, and of a byte given the one before.",
        "answers": "{names}: of the generated answers, see docs/metrics.md of kebyt5-xm.",
        "media": "images, recordings, arrays",
        "share": "the last {share} of every store",
        "file": "`{file}`",
    },
    "ko": {
        "denoising": "지워진 부분 되살리기(span denoising)",
        "prompts": "프롬프트 다음의 목표 글",
        "both": "{denoising}와 {prompts}",
        "unknown": "기록 없음",
        "loss": "`loss`: 목표 id마다 nat.",
        "bits_per_byte": "`bits_per_byte`: 써야 할 바이트마다 비트. span denoising에서는 지워진 글의 바이트이다.",
        "baselines": "`uniform`, `unigram`, `bigram`: 견주기 위한 같은 바이트의 엔트로피(바이트마다 비트)로, "
        "모든 바이트가 같을 때, 바이트 하나씩, 앞 바이트를 알 때이다.",
        "answers": "{names}: 생성한 답의 지표. kebyt5-xm의 docs/metrics.md를 보라.",
        "media": "이미지, 녹음, 배열",
        "share": "저장소마다 마지막 {share}",
        "file": "`{file}`",
    },
}
"""Phrases that depend on what a run did, by language."""

BASELINES = ("uniform", "unigram", "bigram")


def model_cards(facts: RunFacts, cross_modal: "CrossModalT5 | None" = None) -> dict[str, str]:
    """Return the cards by file name; `cross_modal` is the whole model, if it is exported."""
    denoising = vars(facts.denoising) if facts.denoising else {}
    code = (
        text_code(denoising, facts.sources, facts.lora_apart)
        if cross_modal is None
        else cross_modal_code(cross_modal, facts.sources)
    )
    metadata = run_metadata(facts)
    return {
        name: f"{front_matter(metadata)}\n\n{_text(facts, language, code)}"
        for name, language in CARDS.items()
    }


def render(template: str, **values: Any) -> str:
    """Return a card of `templates`, with one empty line between paragraphs."""
    text = _environment().get_template(template).render(**values)
    text = re.sub(r"(?<=[^\n])\n(?=#{2,} |```python)", "\n\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def _text(facts: RunFacts, language: str, code: str) -> str:
    phrases = PHRASES[language]
    prompts = [source for source in facts.sources if source.prompt is not None]
    denoised = [source.name for source in facts.sources if source.denoises]
    names: dict[str, str] = dict(zip(EXTRAS, phrases["media"].split(", "), strict=True))
    others = len(facts.sources) - len(denoised)
    objective = (
        "both" if denoised and others else "denoising" if denoised else "prompts" if others else "unknown"
    )
    return render(
        f"card.{language}.md",
        f=facts,
        c=facts.backbone,
        code=code,
        prompts=prompts,
        denoised=denoised,
        sentinel=sentinel_formula(vars(facts.denoising)) if facts.denoising else "",
        media=[names[kind] for kind in dict.fromkeys(modality.media for modality in facts.modalities)],
        objective=phrases[objective].format(**phrases),
        held_out=_held_out(facts, phrases),
        validation_rows=[
            [part, *(f"{values[c]:.4f}" if c in values else "" for c in facts.validation_columns)]
            for part, values in facts.validation.items()
        ],
        metric_texts=_metric_texts(facts, phrases),
        installed=installed_versions(),
        citation=CITATION,
    )


def _held_out(facts: RunFacts, phrases: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the held-out parts: their name, place, rows and digest."""
    found = []
    for source in facts.sources:
        for part in source.parts:
            if not part.held_out:
                continue
            try:
                text = phrases["share"].format(share=f"{float(part.held_out):.3g}")
            except ValueError:
                text = phrases["file"].format(file=part.held_out)
            rows, digest = part.held_out_rows, part.held_out_digest
            found.append({"name": part.name, "text": text, "rows": rows, "digest": digest})
    return found


def _metric_texts(facts: RunFacts, phrases: Mapping[str, str]) -> list[str]:
    """Return what the figures of this card mean, each once."""
    columns = facts.validation_columns
    names = [c for c in columns if c not in ("loss", "bits_per_byte", *BASELINES)]
    names = list(dict.fromkeys([*names, *(result.metric for result in facts.evaluated)]))
    found = [phrases[column] for column in ("loss", "bits_per_byte") if column in columns]
    found += [phrases["baselines"]] if any(name in columns for name in BASELINES) else []
    listed = ", ".join(f"`{name}`" for name in names)
    return [*found, *([phrases["answers"].format(names=listed)] if names else [])]


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("kebyt5_xm.commands.export"),
        undefined=StrictUndefined,
        autoescape=False,  # Markdown, whose variable parts are numbers, names and code
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "thousands": "{:,}".format,
        "row": _row,
        "percent": _percent,
        "hours": _hours,
        "code": _code,
    }
    return environment


def _row(values: Iterable[Any]) -> str:
    """Return a row of a Markdown table."""
    return f"| {' | '.join(str(value).replace('|', '&#124;') for value in values)} |"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.2f}" if seconds >= 360 else f"{seconds / 3600:.4f} ({seconds:.3g} s)"


def _code(text: str) -> str:
    """Return text as a Markdown code span, line ends and tabs visible."""
    shown = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
    ticks = "`" * (max((len(run) for run in re.findall("`+", shown)), default=0) + 1)
    pad = " " if shown.startswith(("`", " ")) or shown.endswith(("`", " ")) or not shown else ""
    return f"{ticks}{pad}{shown}{pad}{ticks}"
