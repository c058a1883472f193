"""Checks that the demo's packages are installed, by this project's own metadata."""

from importlib.metadata import PackageNotFoundError, distribution, requires

from packaging.requirements import Requirement

from kebyt5_xm.errors import UserError

PROJECT = "kebyt5-xm"


def check(extra: str = "demo") -> None:
    """Raise UserError if a package of the extra is not installed."""
    if missing := [name for name in _packages(extra) if not _installed(name)]:
        raise UserError(
            f"found no {', '.join(missing)}, expected everything of the extra '{extra}'; "
            f"run: pip install '{PROJECT}[{extra}]'"
        )


def _packages(extra: str) -> list[str]:
    """Return the distributions of an extra, including those of the extras that it names."""
    try:
        requirements = [Requirement(text) for text in requires(PROJECT) or []]
    except PackageNotFoundError as error:
        raise UserError(f"{PROJECT} is not installed here; run: make install") from error
    names = []
    for requirement in requirements:
        if requirement.marker and requirement.marker.evaluate({"extra": extra}):
            if requirement.name == PROJECT:
                names += [name for inner in sorted(requirement.extras) for name in _packages(inner)]
            else:
                names.append(requirement.name)
    return names


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
