"""Options of `kebyt5-xm generate` that say how answers are searched for, and those that exclude each other."""

import argparse
import math

from kebyt5_xm.errors import UserError


def add_search_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how answers are searched for."""
    parser.add_argument(
        "--max-length", type=int, default=256, metavar="N", help="most bytes of the answer (256)"
    )
    parser.add_argument(
        "--n", type=int, default=1, metavar="N", help="answers to each prompt, the best first (1)"
    )
    parser.add_argument("--num-beams", type=int, metavar="N", help="beams; without them decoding is greedy")
    parser.add_argument(
        "--temperature", type=float, metavar="T", help="sample with this temperature; 0 is greedy"
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="with --temperature: draw the same samples each time"
    )
    parser.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="WORD",
        help="choose among labels; give one for each label, and the probability of each is printed",
    )


def check_options(args: argparse.Namespace, given: list[tuple[str, str]]) -> None:
    """Raise `UserError` for values out of range and for options that exclude each other."""
    beams = 1 if args.num_beams is None else args.num_beams
    if min(args.max_length, beams, args.n, args.batch_size) < 1:
        raise UserError(
            f"found --max-length {args.max_length}, --num-beams {beams}, --n {args.n} and --batch-size "
            f"{args.batch_size}, expected 1 or more of each"
        )
    if args.temperature is not None and not 0 <= args.temperature < math.inf:
        raise UserError(f"found --temperature {args.temperature}, expected 0 for greedy or more, such as 0.7")
    samples = bool(args.temperature)
    excluded = [
        (args.label, beams > 1, "--label with --num-beams", "labels are scored, not searched"),
        (args.label, args.n > 1, "--label with --n", "the probability of every label is printed"),
        (args.label, samples, "--label with --temperature", "labels are scored, not drawn"),
        (args.label, args.stream, "--label with --stream", "labels are scored, not written"),
        (samples, beams > 1, "--temperature with --num-beams", "answers are drawn or searched"),
        (args.stream, beams > 1, "--stream with --num-beams", "beams change their minds"),
        (args.stream, args.n > 1, "--stream with --n", "several answers are sorted at the end"),
        (args.stream, args.json, "--stream with --json", "JSON is printed at the end"),
        (args.stream, args.file, "--stream with --file", "answers to a file are written together"),
        (args.file, given, "--file with --image, --audio or --media", "a table names its media in columns"),
    ]
    for one, other, found, reason in excluded:
        if one and other:
            raise UserError(f"found {found}, expected one of them: {reason}")
    if args.seed is not None and not samples:
        raise UserError("found --seed without --temperature, expected both: nothing is drawn otherwise")
    if not args.file:
        needs_file = {
            "--out": args.out is not None,
            "--allow-outside": args.allow_outside,
            "--offset": args.offset is not None,
            "--duration": args.duration is not None,
        }
        for option, is_given in needs_file.items():
            if is_given:
                raise UserError(f"found {option} without --file, expected both; one answer is printed")
    if args.dtype == "int8" and args.device != "cpu":
        raise UserError(
            f"found --dtype int8 with --device {args.device}, expected --device cpu: int8 runs there alone; use bf16"
        )
