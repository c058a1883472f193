"""The features of a frozen encoder, computed once: filled by `kebyt5-xm cache`, read-only in training.

CACHE/KEY/cache.json        encoder, width and precision of the features
CACHE/KEY/NAME.features     features end to end
CACHE/KEY/NAME.index.npy    the place of each medium's features; written last: a segment without it is ignored

KEY is a hash of the encoder (classes, settings, weights) and of its preprocessing; a medium is found by the hash
of its file's bytes. So a cache cannot be stale: a changed encoder or file has another hash.
"""

import argparse

from kebyt5_xm.training.recipes import add_config_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `kebyt5-xm cache`."""
    add_config_argument(parser)
    parser.add_argument(
        "--batch-size", type=int, default=16, metavar="N", help="media encoded at a time (16)"
    )
    parser.add_argument("--device", default="cpu", help="where to compute, such as cuda")
    parser.add_argument(
        "--max-gb", type=float, default=50.0, metavar="N", help="largest size of the caches (50)"
    )
    parser.add_argument(
        "--shard",
        default="0/1",
        metavar="I/N",
        help="fill part I of N, counted from 0, so that N processes share the work",
    )


def run(args: argparse.Namespace) -> None:
    """Fill the caches of a configuration and print what was done. Raises `UserError`."""
    from kebyt5_xm.commands.cache.fill import fill

    for report in fill(args.config, args.batch_size, args.device, args.max_gb, args.shard, args.trust):
        print(report)
