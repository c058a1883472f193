"""A folder of transcripts: one for each recording, all of the same settings, each whole or absent."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kebyt5_xm.durable import durable_file, sync
from kebyt5_xm.errors import UserError

SETTINGS = ".transcripts.json"
"""What the transcripts depend on, so that those of two models are never mixed."""
SOURCES = "recordings"
"""The key of the paths of recordings, by the names of their transcripts."""


class TranscriptFolder:
    """The folder of --out.

    Args:
        folder: made if it does not exist.
        suffix: takes the place of that of a recording.
        recordings: whose transcripts belong there.

    Raises `UserError` if two recordings have one name, and if the folder cannot be made.
    """

    def __init__(self, folder: Path, suffix: str, recordings: Sequence[Path]) -> None:
        self._folder = folder
        self._outputs = {recording: folder / (recording.stem + suffix) for recording in recordings}
        owners: dict[Path, Path] = {}
        for recording, output in self._outputs.items():
            if (other := owners.setdefault(output, recording)) != recording:
                raise UserError(
                    f"found '{other}' and '{recording}', whose transcripts would both be '{output}', expected names "
                    "of their own; use two folders"
                )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cannot make the folder --out '{folder}' ({error.strerror}); choose another"
            ) from error

    def check(self, settings: dict[str, Any]) -> None:
        """Keep `settings` (JSON values); raise `UserError` if the folder has transcripts of others.

        The path of each recording is kept too: another recording of the same name is not done.
        """
        path, wanted = self._folder / SETTINGS, json.loads(json.dumps(settings))
        try:
            before = json.loads(path.read_bytes())
        except (FileNotFoundError, ValueError):
            before = None
        sources: dict[str, str] = {} if before is None else before.pop(SOURCES, {})
        wanted_sources = {
            output.name: str(recording.resolve()) for recording, output in self._outputs.items()
        }
        if before == wanted:
            for output in self._outputs.values():
                other, source = sources.get(output.name), wanted_sources[output.name]
                if other not in (None, source) and output.exists():
                    raise UserError(
                        f"found '{output}', the transcript of '{other}', expected that of '{source}'; choose another "
                        "--out, or delete the file"
                    )
            self._write(path, json.dumps(wanted | {SOURCES: sources | wanted_sources}, indent=1))
            return
        if before is None and any(output.exists() for output in self._outputs.values()):
            raise UserError(
                f"found transcripts in '{self._folder}' that this command did not write; choose another --out"
            )
        if before is not None:
            changed = [name for name in sorted(wanted) if before.get(name) != wanted[name]]
            raise UserError(
                f"found transcripts in '{self._folder}' of another {' and '.join(changed)}, expected the same "
                "command; choose another --out, or delete the folder"
            )
        self._write(path, json.dumps(wanted | {SOURCES: wanted_sources}, indent=1))

    def is_done(self, recording: Path) -> bool:
        """Return whether a recording has its transcript."""
        return self._outputs[recording].exists()

    def write(self, recording: Path, text: str) -> None:
        """Write a transcript; after a kill it is whole or absent."""
        self._write(self._outputs[recording], text)

    def _write(self, path: Path, text: str) -> None:
        try:
            with durable_file(path) as file:
                file.write(text.encode())
            sync(self._folder)
        except OSError as error:
            raise UserError(
                f"cannot write '{path}' ({error.strerror}); make room or choose another --out"
            ) from error
