"""Check a configuration before training: build the model on this CPU, run samples through it, print a table.

Synthetic media go through every modality first, then the first real examples of every source. Each line is ok, FAILED
or skipped, with what was measured; a failed check names the key of the recipe to change. Then come recommended
settings beside those of the recipe, and the time of a step and of the run. The exit code is 0 if nothing failed, 1 if
a check failed, 2 if the configuration cannot be read or built.
"""

import argparse
from pathlib import Path

from kebyt5_xm.training.recipes import add_config_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `kebyt5-xm doctor`."""
    add_config_argument(parser)
    parser.add_argument(
        "--random-weights",
        action="store_true",
        help="random weights of the configured shape instead of pretrained ones",
    )
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="write the recommended settings as an overlay"
    )


def run(args: argparse.Namespace) -> None:
    """Examine the configuration, print the table and exit with 1 if a check failed."""
    from kebyt5_xm.commands.doctor.examination import examine
    from kebyt5_xm.commands.doctor.findings import table

    findings = examine(args.config, args.random_weights, args.trust, args.write)
    print(table(findings))
    if any(finding.status == "FAILED" for finding in findings):
        raise SystemExit(1)
