"""Measures a GPU in at most five minutes: its tests; training, decoding and encoders compared with what people use.

    python -m benchmarks.gpu                                 everything; `make bench-gpu`
    python -m benchmarks.gpu --only train --sizes base       one part, with all the time
    python -m benchmarks.gpu --toy --out /tmp/figures        tiny sizes on a CPU, to test the script

It first measures the rates of a matrix product and of a copy, then the parts in the order of `ORDER`; each is
described in its module. A failure is printed in one line and the next measurement starts; those without time left
are listed at the end, for a second call with `--only`. Figures are merged into gpu.json under the card's name at
once, each part with its date and the versions of torch and transformers. A table of all figures of the card is
printed last. The exit code is 1 if anything failed. Needs torch, transformers and PyYAML (for `tests` and `encoders`
their packages too), and no network.
"""

import argparse
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol, cast

import torch
import transformers

from benchmarks import gpu_decoding, gpu_encoders, gpu_packing, gpu_tests, gpu_training
from benchmarks.device import Device, Group
from benchmarks.gpu_session import Figures, Session
from benchmarks.gpu_table import print_table
from benchmarks.report import RESULTS
from kebyt5_xm.model.backbone import SHAPES

SECONDS = 290.0
"""Of a call, the start of Python included."""


class Part(Protocol):
    """A module with measurements, in groups that share a model: see `Group`."""

    def groups(self, sizes: Sequence[str], device: Device, rates: Mapping[str, float]) -> Iterable[Group]: ...


PARTS = cast(
    dict[str, Part],
    {
        "tests": gpu_tests,
        "train": gpu_training,
        "decode": gpu_decoding,
        "packing": gpu_packing,
        "encoders": gpu_encoders,
    },
)


class Turn(NamedTuple):
    """A part, or its measurements at the first or the later sizes, and the seconds that it may take."""

    part: str
    seconds: float
    sizes: slice = slice(None)


FIRST, LATER = slice(1), slice(1, None)
ORDER = (
    Turn("tests", 75),
    Turn("train", 60, FIRST),
    Turn("decode", 30, FIRST),
    Turn("attention", 40),
    Turn("train", 60, LATER),
    Turn("packing", 25, FIRST),
    Turn("encoders", 30),
    Turn("decode", 30, LATER),
)
"""The most valuable first. A part that needs less leaves its time to the next."""


def turns(only: Sequence[str] | None, sizes: Sequence[str]) -> Iterator[tuple[str, Sequence[str], float]]:
    """Yield part, sizes and seconds of each turn. Parts that were asked for have no limit of their own."""
    for turn in ORDER:
        chosen = sizes[turn.sizes]
        if turn.part in PARTS and chosen and (only is None or turn.part in only):
            yield turn.part, chosen, float("inf") if only else turn.seconds


def main(args: Sequence[str] | None = None) -> int:
    """Run the benchmark; see the top of this file. Return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", action="append", choices=PARTS, help="this part (may be repeated)")
    parser.add_argument("--sizes", nargs="+", choices=sorted(SHAPES), default=["small", "base"])
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help=f"seconds for everything ({SECONDS:g})"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FOLDER", help="folder of gpu.json")
    parser.add_argument("--toy", action="store_true", help="tiny sizes on the CPU")
    options = parser.parse_args(args)
    if not options.toy and not torch.cuda.is_available():
        print("error: found no CUDA device; --toy runs tiny sizes on the CPU", file=sys.stderr)
        return 2
    spent = 0.0 if options.toy else seconds_since_start()
    session = Session(
        Device(options.toy), options.out / "gpu.json", time.monotonic() + options.seconds - spent
    )
    rates: Figures = {}
    print(
        f"{session.device.name}: torch {torch.__version__}, transformers {transformers.__version__}",
        flush=True,
    )
    session.measure("matrix", [((), lambda: {"": partial(_rates, session.device, rates)})])
    for part, sizes, seconds in turns(options.only, options.sizes):
        if not rates and part != "tests":  # without a matrix product nothing else runs
            session.skipped.append(part)
        else:
            session.measure(part, PARTS[part].groups(sizes, session.device, rates), seconds)
    if session.skipped:
        print(f"no time was left for: {', '.join(session.skipped)}")
    if session.failed:
        print(f"failed: {', '.join(session.failed)}")
    print_table(session.device.name, session.figures())
    return 1 if session.failed else 0


def _rates(device: Device, rates: Figures) -> Figures:
    rates.update(device.measure_rates())
    return rates


def seconds_since_start() -> float:
    """Return the seconds since this process was started; importing torch from a cold disk may take many."""
    fields = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / 100


if __name__ == "__main__":
    sys.exit(main())
