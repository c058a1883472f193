"""Write a run's report: RUN/report.html, one file that needs no network, in Korean and English.

The best checkpoint, else the last, first answers the held-out examples; `--no-evaluate` uses the existing evaluation.
A checkpoint may be given instead of a run. So may a folder of `kebyt5-xm evaluate`, which is drawn as it is.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from kebyt5_xm.errors import UserError
from kebyt5_xm.evaluation import PROBED_EXAMPLES, SHOWN_EXAMPLES
from kebyt5_xm.evaluation.baselines import AUTO_ROWS
from kebyt5_xm.evaluation.report import write_report
from kebyt5_xm.trust import add_trust_argument

if TYPE_CHECKING:
    from kebyt5_xm.evaluation.report.media import Opener
    from kebyt5_xm.model.runs.run import Run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `kebyt5-xm report`."""
    parser.add_argument("run", metavar="RUN", help="run directory, one of its checkpoints, or an evaluation")
    parser.add_argument("--out", metavar="FILE", help="the page (RUN/report.html)")
    parser.add_argument(
        "--no-evaluate", action="store_true", help="draw the existing evaluation, without the model"
    )
    add_evaluation_arguments(parser)
    add_baselines(
        parser, "auto", f"what simple methods reach; auto: if {AUTO_ROWS:,} training rows or fewer (auto)"
    )
    add_trust_argument(parser)


def add_evaluation_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what is measured, where, and what of it the page shows."""
    parser.add_argument(
        "--robustness", action="store_true", help="also measure perturbed inputs, which takes time"
    )
    parser.add_argument(
        "--examples",
        type=int,
        default=SHOWN_EXAMPLES,
        metavar="N",
        help=f"outputs shown of each source, wrong ones first ({SHOWN_EXAMPLES})",
    )
    parser.add_argument(
        "--probed",
        type=int,
        default=PROBED_EXAMPLES,
        metavar="N",
        help=f"examples of each source for the use of modalities and robustness, 0 for none ({PROBED_EXAMPLES})",
    )
    add_language(parser)
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="device of the evaluation (cpu)"
    )


def add_baselines(parser: argparse.ArgumentParser, default: str, text: str) -> None:
    """Declare `--baselines`."""
    parser.add_argument("--baselines", choices=("auto", "on", "off"), default=default, help=text)


def add_language(parser: argparse.ArgumentParser) -> None:
    """Declare `--language`; the reader of the page can switch it."""
    parser.add_argument("--language", choices=("ko", "en"), default="en", help="language shown first (en)")


def run(args: argparse.Namespace) -> None:
    """Evaluate unless `--no-evaluate`, write the page and print its path. Raises `UserError`."""
    from kebyt5_xm.model.runs.run import resolve

    check_numbers(args)
    if args.no_evaluate and args.robustness:
        raise UserError("found --robustness with --no-evaluate, expected one of them: it needs the model")
    found = resolve(args.run)
    if found.evaluated_model and args.robustness:
        raise UserError(
            f"'{found.path}' is an evaluation, which is only drawn; give --robustness to kebyt5-xm evaluate"
        )
    if args.baselines == "on" and (args.no_evaluate or found.evaluated_model):
        raise UserError(
            "found --baselines on, but nothing is evaluated here; leave out --no-evaluate, or give it to kebyt5-xm "
            "evaluate"
        )
    find = None if args.no_evaluate or found.evaluated_model else _evaluate(found, args)
    write_report(found, find, Path(args.out) if args.out else None, args.examples, args.language)


def check_numbers(args: argparse.Namespace) -> None:
    """Raise `UserError` for a negative number of examples."""
    for option, value in (("--examples", args.examples), ("--probed", args.probed)):
        if value < 0:
            raise UserError(f"found {option} {value}, expected 0 or more")


def _evaluate(run: "Run", args: argparse.Namespace) -> "Opener":
    """Evaluate a run, and return the opener of its examples' media."""
    from kebyt5_xm.evaluation.baselines.beside import BaselineChoice
    from kebyt5_xm.evaluation.evaluate import evaluate
    from kebyt5_xm.training.from_recipes import build_run

    data, encoders = build_run(run, args.trust)
    evaluation = evaluate(
        run,
        data,
        args.device,
        args.trust,
        num_probed=args.probed,
        with_robustness=args.robustness,
        baselines=BaselineChoice(args.baselines, encoders),
    )
    return evaluation.medium
