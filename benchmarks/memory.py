"""What a process holds in memory, as Linux counts it."""

from pathlib import Path


def memory_mb(pid: int | str = "self") -> dict[str, float]:
    """Return all resident pages; of them, the private ones that are no file's; and the most there ever were."""
    folder = Path("/proc") / str(pid)
    lines = [
        *(folder / "smaps_rollup").read_text(encoding="ascii").splitlines()[1:],
        *(folder / "status").read_text(encoding="utf-8").splitlines(),
    ]
    fields = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    return {name: int(fields[name][0]) * 1024 / 1e6 for name in ("Rss", "Anonymous", "VmHWM")}
