"""The page: one HTML file that needs nothing else."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from kebyt5_xm.commands.preview.drawn import Drawn, Piece, first_drawn, pieces
from kebyt5_xm.commands.preview.pictures import Shown, shown
from kebyt5_xm.data.datamodule import DataModule
from kebyt5_xm.errors import UserError

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.4rem; margin: 0 0 .2rem; }
article { border: 1px solid var(--line); border-radius: .5rem; padding: .8rem 1rem; margin: 1rem 0; }
article header { display: flex; flex-wrap: wrap; gap: .2rem .8rem; align-items: baseline; }
h2 { font-size: 1rem; margin: 0; }
small, figcaption, dt { color: #888; font-size: .85rem; }
small { overflow-wrap: anywhere; }
dl { margin: .5rem 0 0; }
dd { margin: 0 0 .5rem; overflow-wrap: anywhere; white-space: pre-wrap; }
figure { margin: .5rem 0; }
img { max-width: 100%; min-height: 6rem; max-height: 18rem; image-rendering: pixelated; display: block; }
audio { width: 100%; max-width: 30rem; display: block; }
mark { border-radius: .3rem; padding: 0 .35em; margin: 0 .1em; color: inherit; font-size: .85em; }
mark { white-space: nowrap; }
.sentinel { background: #f5a62355; }
.slot { background: #4a90e255; }
.end { background: var(--soft); }
.skipped { border-color: #d0021b; }
"""


def write_page(
    paths: list[str],
    number: int,
    first: int,
    source: str | None,
    out: str,
    trusted_modules: Sequence[str] = (),
) -> int:
    """Write the page of `number` examples and return how many of them could not be made. Raises `UserError`."""
    from kebyt5_xm.training.configured import configured_data

    if number < 1 or first < 0:
        raise UserError(f"found --number {number} and --first {first}, expected at least 1 and at least 0")
    # What the encoders would be given, not what a cache holds in its place.
    data = configured_data(paths, trusted_modules)
    drawn = list(first_drawn(data, number, first, source))
    names = " + ".join(paths)
    html = "\n".join(
        (
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>Preview of {escape(names)}</title><style>{STYLE}</style></head><body>",
            f"<h1>What the model is given</h1><small>{escape(names)}, examples in the order of training</small>",
            *(_article(data, one) for one in drawn),
            "</body></html>\n",
        )
    )
    try:
        Path(out).write_text(html, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}; choose another --out") from error
    return sum(one.example.skipped is not None for one in drawn)


def _article(data: DataModule, drawn: Drawn) -> str:
    example = drawn.example
    head = f"<h2>{drawn.index} · {escape(drawn.part)}</h2><small>{escape(drawn.place)}</small>"
    if example.skipped is not None:
        cause = escape(f"{example.skipped.path}: {example.skipped.cause}")
        return f'<article class="skipped"><header>{head}</header><dl><dt>skipped</dt><dd>{cause}</dd></dl></article>'
    figures = []
    for medium, decoded in zip(example.media, drawn.decoded, strict=True):
        interface = data.interfaces[medium.modality]
        rate = interface.preprocessor.waveform_rate
        figures += [_figure(s) for s in shown(interface.media, rate, medium.prepared, decoded)]
    inputs = "".join(map(_marked, pieces(example.input_ids, drawn.sentinels, example)))
    targets = "".join(map(_marked, pieces(example.target_ids, drawn.sentinels)))
    return "\n".join(
        (
            f"<article><header>{head}</header>",
            *figures,
            f"<dl><dt>input, {len(example.input_ids)} positions</dt><dd>{inputs}</dd>",
            f"<dt>target, {len(example.target_ids)} ids</dt><dd>{targets}</dd></dl></article>",
        )
    )


def _marked(piece: Piece) -> str:
    text = escape(piece.text)
    return text if piece.kind == "text" else f'<mark class="{piece.kind}">{text}</mark>'


def _figure(element: Shown) -> str:
    caption = escape(element.caption)
    media = (
        f'<img src="{element.url}" alt="{caption}">'
        if element.kind == "img"
        else f'<audio controls src="{element.url}"></audio>'
    )
    return f"<figure>{media}<figcaption>{caption}</figcaption></figure>"
