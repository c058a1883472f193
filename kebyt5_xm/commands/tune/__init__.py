"""Find the learning rate of a recipe by short runs: a range test, then runs that held-out examples judge.

The range test raises the rate with every step until the training loss rises. Runs of a few steps, each with a rate of
its own from the same start, then decide. The folder gets tune.html with both curves, and rate.yaml, an overlay that
sets the rate. Ctrl-C ends the search and keeps what it has found. The folder of the run is not touched.
"""

import argparse
from pathlib import Path

from kebyt5_xm.training.recipes import add_config_argument

DEFAULT_MINUTES = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `kebyt5-xm tune`."""
    add_config_argument(parser)
    parser.add_argument(
        "--minutes",
        type=float,
        default=DEFAULT_MINUTES,
        metavar="M",
        help=f"how long the search may take, without loading the model ({DEFAULT_MINUTES:g})",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="the folder of the results (run_dir of the recipe, and -tune)",
    )


def run(args: argparse.Namespace) -> None:
    """Search, write the page and the overlay, and print the rate. Raises `UserError`."""
    from kebyt5_xm.commands.tune.search import tune

    tune(args.config, args.minutes, args.out, args.trust)
