"""The tables and stores to lint: those at given paths, and those of the sources in recipes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from kebyt5_xm.data.media.opening import Media, open_media
from kebyt5_xm.data.media.reference import Limits, Readable
from kebyt5_xm.data.sources.inspection import Inspection, inspect_store
from kebyt5_xm.data.sources.manifest_source import Manifest
from kebyt5_xm.data.text.store import Store
from kebyt5_xm.errors import UserError

KINDS: tuple[Media, ...] = get_args(Media)


def of_paths(
    paths: Sequence[str],
    prompt: str,
    target: str,
    offset: str | None = None,
    duration: str | None = None,
) -> Iterator[Inspection]:
    """Yield the manifests and stores at `paths`; the other arguments are a manifest's. Raises `UserError`."""
    for path in paths:
        if Path(path).is_dir():
            yield inspect_store(Store(path))
            continue
        source = Manifest(
            path,
            prompt,
            target,
            offset=offset,
            duration=duration,
            max_source_length=1 << 40,
            max_target_length=1 << 40,
        )
        unknown = [name for name in source.modalities if name not in KINDS]
        if unknown:
            raise UserError(
                f"found the modality '{unknown[0]}' in --prompt, expected one of {', '.join(KINDS)}; a recipe's own "
                "modalities are known with -c"
            )
        source.connect({name: _Decoded(name) for name in KINDS})  # pyright: ignore[reportArgumentType]
        yield from source.inspections()


def of_recipes(paths: Sequence[str], trusted_modules: Sequence[str] = ()) -> Iterator[Inspection]:
    """Yield the tables and stores of the sources in the merged recipes at `paths`, held-out ones too."""
    if not paths:
        return
    from kebyt5_xm.training.from_recipes import build_data

    # Media are opened and prepared: feature caches are not read.
    for name, source in build_data(list(paths), trusted_modules).sources.items():
        for inspection in source.inspections():
            yield replace(inspection, source=name)


@dataclass(frozen=True)
class _Decoded:
    """A modality without a model: a medium is decoded and fills no slot."""

    media: Media

    def load(self, readable: Readable, limits: Limits | None = None) -> tuple[None, int]:
        open_media(readable, self.media, limits)
        return None, 0
