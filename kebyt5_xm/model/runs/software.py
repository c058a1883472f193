"""The versions of the packages that train a model, for a run's record of itself."""

from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("kebyt5-xm", "torch", "lightning", "transformers")


def installed_versions() -> dict[str, str]:
    """Return package -> version; a package that is used from its source folder is left out."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
