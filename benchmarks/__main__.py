"""Runs all benchmarks: `make bench`, or `python -m benchmarks NAME ...` for some of them.

Each prints its figures, with ratios to another library in the same run, and writes benchmarks/results/NAME.json. Then
`python -m benchmarks.readme --write` writes README's tables.
"""

import argparse
import importlib
import time

NAMES = (
    "bytes",
    "denoising",
    "store",
    "manifest",
    "loader",
    "cache",
    "training",
    "decoding",
    "drafting",
    "serving",
)


def main() -> None:
    """Run the benchmarks named on the command line, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)}; default: all")
    names = parser.parse_args().names
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        parser.error(f"no benchmark '{unknown[0]}', expected one of {', '.join(NAMES)}")
    for name in names or NAMES:
        print(f"\n{name}")
        begin = time.monotonic()
        importlib.import_module(f"benchmarks.{name}").main()
        print(f"{name} took {time.monotonic() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()
