"""The options that name the columns of excerpts, for commands that read a table without a recipe."""

import argparse


def add_excerpt_arguments(parser: argparse.ArgumentParser, of: str) -> None:
    """Declare --offset and --duration; `of` says at the start of their help when they apply."""
    for name, time in (("--offset", "at which a row begins in"), ("--duration", "that a row takes of")):
        parser.add_argument(
            name, metavar="COLUMN", help=f"{of}column of the seconds {time} its recording, as in a recipe"
        )
