"""`kebyt5-xm select`: of a model's answers, keep those that are probably right, as a manifest to train on.

ANSWERS is a manifest that `kebyt5-xm teach` wrote. With --precision, --held-out is another one, written by the same
command for rows whose right answers are known: the threshold is the lowest confidence at which the kept held-out
answers reach that precision. The precision to expect is counted on rows that did not choose their threshold, with
its 95 % interval. With --threshold you choose it yourself.

Answers that were cut at their longest length or that repeat a phrase are never kept.
"""

import argparse
import math
import sys
from pathlib import Path

from kebyt5_xm.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("answers", metavar="ANSWERS", help="a manifest that `kebyt5-xm teach` wrote")
    parser.add_argument(
        "--out", required=True, type=Path, metavar="PATH", help="the manifest to write, a new file"
    )
    parser.add_argument(
        "--precision", type=float, metavar="P", help="wanted share of right answers, such as 0.95"
    )
    parser.add_argument(
        "--threshold", type=float, metavar="C", help="keep answers of this confidence or more"
    )
    parser.add_argument(
        "--held-out", metavar="PATH", help="answers of the same model to rows with right answers"
    )
    parser.add_argument("--target", metavar="TEXT", help="the right answer of a held-out row: '{transcript}'")
    parser.add_argument(
        "--max-error-rate",
        type=float,
        default=0.0,
        metavar="R",
        help="an answer is right with at most so many edits per character of the right one (0: the same text)",
    )
    parser.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="WORD",
        help="drop answers that are none of these labels",
    )
    parser.add_argument(
        "--hard",
        type=int,
        default=0,
        metavar="N",
        help="also write the N least confident rows to OUT with .hard before its ending, to answer them by hand",
    )
    parser.add_argument("--prefix", default="", metavar="TEXT", help="as given to `kebyt5-xm teach`")


def run(args: argparse.Namespace) -> None:
    """Choose the threshold, write the rows and say what to expect. Raises `UserError`."""
    _check(args)
    from kebyt5_xm.commands.select.answers import Answers
    from kebyt5_xm.commands.select.held_out import choose_threshold, describe
    from kebyt5_xm.commands.select.writing import hard_path, write_selected
    from kebyt5_xm.commands.teach.manifest import check_place

    answers = Answers(args.answers, args.prefix, args.label)
    for path in (args.out, *([hard_path(args.out)] if args.hard else [])):
        if path.exists() or not path.absolute().parent.is_dir():
            found = f"'{path}'" if path.exists() else f"no folder '{path.absolute().parent}'"
            raise UserError(f"found {found}, expected a new file in an existing folder; choose another --out")
    check_place(answers.rows, args.out, has_media=False)
    threshold, selection = args.threshold, None
    if args.held_out is not None:
        selection = choose_threshold(answers, args)
        threshold = selection.threshold
    written = write_selected(answers, threshold, args.out, args.hard)
    print(written.describe(threshold, args.out))
    if selection is not None:
        print(describe(selection))
    if not written.kept:
        print("no answer is kept: train longer, or ask for less precision", file=sys.stderr)


def _check(args: argparse.Namespace) -> None:
    if (args.precision is None) == (args.threshold is None):
        found = (
            "neither --precision nor --threshold"
            if args.precision is None
            else "--precision with --threshold"
        )
        raise UserError(f"found {found}, expected one of them")
    for option, value in (("--precision", args.precision), ("--threshold", args.threshold)):
        if value is not None and not 0 <= value <= 1:
            raise UserError(f"found {option} {value}, expected a share from 0 to 1, such as 0.95")
    if not 0 <= args.max_error_rate < math.inf or args.hard < 0:
        raise UserError(
            f"found --max-error-rate {args.max_error_rate} and --hard {args.hard}, expected 0 or more of each"
        )
    if args.precision is not None and args.held_out is None:
        raise UserError(
            "found --precision without --held-out, expected answers of the same model to rows whose right answers "
            "are known: write them with `kebyt5-xm teach`"
        )
    if (args.held_out is None) != (args.target is None):
        raise UserError(
            "found one of --held-out and --target, expected both: --target '{COLUMN}' is the right answer of a "
            "held-out row"
        )
    if args.max_error_rate and args.held_out is None:
        raise UserError(
            "found --max-error-rate without --held-out, expected both: it judges held-out answers"
        )
