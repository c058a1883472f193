"""Put runs side by side: one page like a report, in Korean and English.

It draws existing evaluations: evaluate each run with `kebyt5-xm report RUN` first.
"""

import argparse
from pathlib import Path

from kebyt5_xm.commands.report import add_language
from kebyt5_xm.errors import UserError
from kebyt5_xm.evaluation.report import write_page


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `kebyt5-xm compare`."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run directories, two or more")
    parser.add_argument("--out", default="compare.html", metavar="FILE", help="the page (compare.html)")
    add_language(parser)


def run(args: argparse.Namespace) -> None:
    """Write the page and print its path. Raises `UserError`."""
    from kebyt5_xm.evaluation.report.comparison import compare
    from kebyt5_xm.model.runs.run import resolve

    if len(args.runs) < 2:
        raise UserError(f"found one run, {args.runs[0]}, expected two or more to compare")
    size = write_page(compare([resolve(path) for path in args.runs], language=args.language), Path(args.out))
    print(f"wrote {args.out}: {size / 1e6:.1f} MB")
