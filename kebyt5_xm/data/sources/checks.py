"""Checks that sources feed every modality, and that prompts use media as slots.

Without them a prompt that forgets `:image` would train on the names of files.
"""

import logging
import os
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from kebyt5_xm.data.media.bad_sample import BadSample
from kebyt5_xm.data.media.names import guess_media
from kebyt5_xm.data.media.reference import resolve
from kebyt5_xm.data.sources.template import Template
from kebyt5_xm.data.tables.rows import Rows
from kebyt5_xm.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from kebyt5_xm.data.media.interface import MediaInterface
    from kebyt5_xm.data.sources.source import Source

_LOG = logging.getLogger(__name__)

PATH_ROWS_CHECKED = 20
"""A column counts as one of paths if its texts in the first so many rows all name files."""


def check_fed(
    sources: "Mapping[str, Source]", interfaces: "Mapping[str, MediaInterface]", idle: Collection[str]
) -> None:
    """Raise `UserError` for a modality that no source feeds, unless it is among the `idle` ones."""
    for name in idle:
        if name not in interfaces:
            raise UserError(
                f"found '{name}' in data.idle_modalities, expected one of model.modalities: "
                f"{', '.join(interfaces) or 'there are none'}{did_you_mean(name, interfaces)}"
            )
    fed = {name for source in sources.values() for name in source.modalities}
    if fed_idle := [name for name in idle if name in fed]:
        raise UserError(
            f"found '{fed_idle[0]}' in data.idle_modalities, but a source feeds it; take it out of the list"
        )
    for name in interfaces:
        if name not in fed and name not in idle:
            raise UserError(
                f"no source feeds the modality '{name}': no prompt has a column with ':{name}' behind it; write "
                f"'{{COLUMN:{name}}}' in a prompt, take the modality out (model.modalities.{name}: null), or name it "
                "in data.idle_modalities if the model is to keep it untrained"
            )


def check_texts(
    template: Template, rows: Rows, interfaces: "Mapping[str, MediaInterface]", fed: Collection[str]
) -> None:
    """Raise `UserError` if a template uses a column of paths to a modality's media as text.

    The error is raised if the column has the name of a modality, or if no source feeds (`fed`) a modality that takes
    such files. Otherwise a warning is logged.
    """
    for column in template.text_columns:
        media = _media_in(column, rows)
        if media is None:
            continue
        kin = [name for name, interface in interfaces.items() if interface.media == media]
        meant = column if column in kin else next((name for name in kin if name not in fed), None)
        found = (
            f"the column '{column}' in {template.text!r} holds paths of {media} files, which are used as text"
        )
        if meant is not None:
            raise UserError(f"{found}; write {{{column}:{meant}}} for what is in them")
        _LOG.warning("%s; write {%s:MODALITY} if what is in them is meant", found, column)


def _media_in(column: str, rows: Rows) -> str | None:
    """Return the kind of media if the first rows of a column all name existing files of one kind."""
    kinds = set()
    for number in range(min(PATH_ROWS_CHECKED, len(rows))):
        try:
            value = rows.row(number).get(column)
        except BadSample:
            continue
        if value is not None:
            kinds.add(_kind(value, rows))
    return kinds.pop() if len(kinds) == 1 else None


def _kind(value: object, rows: Rows) -> str | None:
    if not isinstance(value, str) or len(value) > 1000:
        return None
    media = guess_media(value)
    if media is None:
        return None
    try:
        path = resolve(rows.root, value, allow_outside=True)
        return media if isinstance(path, str | os.PathLike) and os.path.isfile(path) else None
    except (BadSample, OSError, ValueError):
        return None
