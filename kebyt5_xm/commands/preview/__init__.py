"""Show the first examples of a run as the model gets them: one HTML file, which needs no network.

For every example in training order: the input with its sentinels and slots marked, the prepared images, the
recordings with a player and a spectrogram, and the target. An example that cannot be made is shown with its
cause.
"""

import argparse

from kebyt5_xm.training.recipes import add_config_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `kebyt5-xm preview`."""
    add_config_argument(parser)
    parser.add_argument("-n", "--number", type=int, default=12, metavar="N", help="examples shown (12)")
    parser.add_argument(
        "--first", type=int, default=0, metavar="I", help="number of the first example in the run (0)"
    )
    parser.add_argument("--source", metavar="NAME", help="only examples of this source")
    parser.add_argument("--out", default="preview.html", metavar="FILE", help="the page (preview.html)")


def run(args: argparse.Namespace) -> None:
    """Write the page and print its path. Raises `UserError`."""
    from kebyt5_xm.commands.preview.page import write_page

    num_skipped = write_page(args.config, args.number, args.first, args.source, args.out, args.trust)
    print(
        f"wrote {args.out}: {args.number} examples"
        + (f", {num_skipped} of them skipped" if num_skipped else "")
    )
