"""The version of the installed package."""

from importlib import metadata


def version() -> str:
    """Return `kebyt5_xm VERSION`, as installed."""
    try:
        return f"kebyt5_xm {metadata.version('kebyt5_xm')}"
    except metadata.PackageNotFoundError:
        return "kebyt5_xm, not installed (run from a checkout)"
