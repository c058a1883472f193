"""Before a run: measures the sources' lengths, and checks how many rows can be used.

A file of its own because it imports Lightning, which `kebyt5-xm lint` and data workers need not load.
"""

import time
from collections.abc import Mapping

from lightning.pytorch.utilities import rank_zero_info
from tqdm import tqdm

from kebyt5_xm.data.pool import num_cores
from kebyt5_xm.data.sources.source import Source
from kebyt5_xm.errors import UserError


def measure(sources: Mapping[str, Source]) -> float:
    """Make the length tables that are missing; return the seconds it took, 0 if there was nothing to do.

    Rows that gave no example are measured again. A progress bar appears after two seconds. The sources must be
    connected.
    """
    started, num_rows = time.perf_counter(), 0
    with tqdm(unit=" rows", desc="lengths", disable=None, delay=2.0) as bar:

        def progress(rows: int) -> None:
            nonlocal num_rows
            num_rows += rows
            bar.update(rows)

        for source in sources.values():
            source.prepare(max(1, num_cores()), progress)
    if not num_rows:
        return 0.0
    seconds = time.perf_counter() - started
    rank_zero_info(
        f"data: measured the lengths of {num_rows} rows in {seconds:.1f} s; they are kept for the next run"
    )
    return seconds


def check_usable(sources: Mapping[str, Source], max_skipped: float, longest: int | None) -> None:
    """Raise `UserError` if more than a share `max_skipped` of a source cannot be used, by headers alone.

    `longest`: the most positions or target ids that a micro-batch has room for, None for no limit.
    """
    for name, source in sources.items():
        bad, rows = source.impossible(longest)
        if bad > max_skipped * rows:
            path, _ = source.place(0, 0)
            raise UserError(
                f"data.sources.{name}: {bad} of {rows} rows of {path} give no example"
                + (f" of at most {longest} positions and target ids (data.budget)" if longest else "")
                + f", more than data.max_skipped {max_skipped:g} allows; `kebyt5-xm lint` with the same -c names "
                "them and shows the lengths: mend the rows, or raise data.max_skipped"
            )
