"""Write a run's report: RUN/report.html, one file that needs no network, in Korean and English.

The best checkpoint, else the last, answers the held-out examples first; `--no-evaluate` draws what is there already.
A checkpoint may be named instead of a run.
"""

import argparse
from pathlib import Path

from kebyt5_xm.errors import UserError

DEFAULT_EXAMPLES = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `kebyt5-xm report`."""
    parser.add_argument("run", metavar="RUN", help="run directory, or one of its checkpoints")
    parser.add_argument("--out", metavar="FILE", help="the page (RUN/report.html)")
    parser.add_argument(
        "--no-evaluate", action="store_true", help="draw the evaluation that is there, without the model"
    )
    parser.add_argument(
        "--robustness", action="store_true", help="measure disturbed inputs too, which takes time"
    )
    parser.add_argument(
        "--examples",
        type=int,
        default=DEFAULT_EXAMPLES,
        metavar="N",
        help=f"outputs shown of each source, wrong ones first ({DEFAULT_EXAMPLES})",
    )
    add_language(parser)
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="where it is evaluated (cpu)"
    )
    parser.add_argument(
        "--trust", action="append", default=[], metavar="PACKAGE", help="may be imported too; repeatable"
    )


def add_language(parser: argparse.ArgumentParser) -> None:
    """Declare `--language`, which the reader of the page can switch."""
    parser.add_argument("--language", choices=("ko", "en"), default="en", help="shown first (en)")


def run(args: argparse.Namespace) -> None:
    """Evaluate unless told not to, write the page and say where it is. Raises `UserError`."""
    from kebyt5_xm.report.draw import draw
    from kebyt5_xm.report.media import beside_manifest
    from kebyt5_xm.run import resolve

    if args.examples < 0:
        raise UserError(f"found --examples {args.examples}, expected 0 or more")
    if args.no_evaluate and args.robustness:
        raise UserError("found --robustness with --no-evaluate, expected one of them: it needs the model")
    resolved = resolve(args.run)
    if args.no_evaluate:
        find = beside_manifest(resolved)
    else:
        from kebyt5_xm.evaluation.evaluate import evaluate

        find = evaluate(resolved, args.device, args.trust, with_robustness=args.robustness).medium
    out = Path(args.out) if args.out else resolved.path / "report.html"
    html = draw(resolved, find, examples_shown=args.examples, language=args.language)
    write(html, out)


def write(html: str, out: Path) -> None:
    """Write a page, whole or not at all, and say where it is. Raises `UserError`."""
    from kebyt5_xm.durable import durably

    content = html.encode()
    try:
        with durably(out) as file:
            file.write(content)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}; choose another --out") from error
    print(f"wrote {out}: {len(content) / 1e6:.1f} MB")
