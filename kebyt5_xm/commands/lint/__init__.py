"""Read every row of manifests and every document of stores, and every file they name, before anything trains.

Each problem is a line `FILE:LINE: cause`, as of a linter; counts by cause and histograms of the lengths follow. With
`-c` the sources of a recipe are read as training would read them: its prompts, limits, encoders and adapters decide
what is a problem and how long an example is. The exit code is 0 if nothing is wrong, 1 if something is, 2 if there is
nothing to read.
"""

import argparse

from kebyt5_xm.commands.excerpts import add_excerpt_arguments
from kebyt5_xm.training.recipes import add_config_argument

DEFAULT_SHOWN = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `kebyt5-xm lint`."""
    parser.add_argument("paths", nargs="*", metavar="PATH", help="manifests and text stores")
    add_config_argument(parser, required=False)
    parser.add_argument(
        "--prompt",
        default="",
        metavar="TEXT",
        help="prompt of the manifests at PATH, as in a recipe, with image, audio or array for the modality: "
        '"{picture:image} {question}"; without one, only the rows are read',
    )
    parser.add_argument(
        "--target", default="", metavar="TEXT", help="target of the manifests at PATH: '{caption}'"
    )
    add_excerpt_arguments(parser, "of the manifests at PATH: ")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes (one for each core)")
    parser.add_argument(
        "--show",
        type=int,
        default=DEFAULT_SHOWN,
        metavar="N",
        help=f"problems printed for each source ({DEFAULT_SHOWN})",
    )
    parser.add_argument("--out", metavar="FILE", help="write every problem to FILE as a line of JSON")


def run(args: argparse.Namespace) -> None:
    """Read everything and print the report; exit with 1 if there was a problem. Raises `UserError`."""
    from kebyt5_xm.commands.lint.report import report
    from kebyt5_xm.commands.lint.subjects import of_paths, of_recipes

    tables = of_paths(args.paths, args.prompt, args.target, args.offset, args.duration)
    subjects = [*tables, *of_recipes(args.config, args.trust)]
    if report(subjects, args.workers, args.show, args.out):
        raise SystemExit(1)
