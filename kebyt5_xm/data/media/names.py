"""File names in rows and commands: media type by suffix, Unicode forms, hints for missing files, and `~/`.

`~/` at the start of a path is the home folder, in every recipe value and every command argument. A shell expands it
only at the start of a word, not in `--out=~/x`, and YAML never does. Values that are text are left unchanged.
"""

import errno
import os
import re
import unicodedata
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote

if TYPE_CHECKING:
    from kebyt5_xm.encoder import Media

FORMS: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")
MIN_BASE64_LENGTH = 255
"""A name too long for the file system may be file content if it has more characters. Our own choice."""
MEDIA_OF_SUFFIX: "dict[str, Media]" = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".jp2"), "image"),
    **dict.fromkeys((".avif", ".heic"), "image"),
    **dict.fromkeys((".wav", ".flac", ".mp3", ".mp2", ".ogg", ".oga", ".opus", ".aac", ".amr"), "audio"),
    **dict.fromkeys((".m4a", ".m4b", ".mp4", ".3gp", ".mka", ".webm"), "audio"),
    **dict.fromkeys((".aif", ".aiff", ".caf", ".w64", ".pcm"), "audio"),
    **dict.fromkeys((".npy", ".npz", ".safetensors"), "array"),
}
"""Common media suffixes, to recognise columns of paths and to describe missing or damaged files.

The content of a file decides whether it is read. `.au` is left out: Australian web addresses end in it.
"""
TEXT_KEYS = ("prompt", "target", "labels", "language", "pattern", "class_path")
"""Recipe keys and command options whose values are never paths."""
_OPTION = re.compile(r"(--?[\w.-]+=|[\w.-]+=)?(~/.*)", re.DOTALL)


def guess_media(path: str) -> "Media | None":
    """Return the media type that the suffix suggests, or None."""
    return MEDIA_OF_SUFFIX.get(os.path.splitext(path)[1].lower())


def find_stored_path(root: str, reference: str) -> str:
    """Return the path of `reference` under `root`, each name in the Unicode form stored on disk.

    macOS and its archives store decomposed names (NFD), most manifests have composed ones (NFC). The given form is
    tried first. A name that exists in no form is returned as given.
    """
    path = os.path.join(root, reference)
    if os.path.lexists(path):
        return path
    if reference.startswith("~/"):
        path = reference = os.path.expanduser(reference)
    if reference.isascii():
        return path
    found = root
    for name in reference.split(os.sep):
        places = [
            os.path.join(found, form) for form in (name, *(unicodedata.normalize(f, name) for f in FORMS))
        ]
        found = next((place for place in places if os.path.lexists(place)), places[0])
    return found


def describe_missing(path: str, error: OSError) -> str:
    """Return why `path` does not exist, with a suggestion if a similar name exists."""
    if error.errno == errno.ENAMETOOLONG:
        cause = f"found a path of {len(os.fsencode(path))} bytes, longer than the file system takes"
        if len(path) > MIN_BASE64_LENGTH and re.fullmatch(r"[A-Za-z0-9+/=_\s-]+", path[-MIN_BASE64_LENGTH:]):
            cause += "; if it is a file's content in base64, write it as 'data:;base64,...'"
        return cause
    name = os.path.basename(path)
    if re.search(r"(^|/)[A-Za-z]:\\", path):
        return "there is no such file; it is a Windows path: write it relative to the manifest, with slashes"
    for meant in _similar_names(name):
        if meant != name and meant and os.path.lexists(os.path.join(os.path.dirname(path), meant)):
            return f"there is no such file; did you mean {meant!r}?"
    return "there is no such file"


def _similar_names(name: str) -> Iterator[str]:
    """Yield likely corrections of `name`. Each is looked up on its own: a folder may hold millions of files."""
    stem, suffix = os.path.splitext(name)
    yield name.replace("\\", "/")
    yield name.strip()
    yield unquote(name)
    yield from (stem + suffix.lower(), stem + suffix.upper(), stem + suffix.capitalize())
    yield from (name.lower(), name.upper(), name.capitalize(), stem.upper() + suffix.lower())


def expand_home(path: str) -> str:
    """Return a path with a leading `~` replaced by the home folder."""
    return os.path.expanduser(path) if path == "~" or path.startswith("~/") else path


def expand_recipe(value: Any) -> Any:
    """Return a recipe, or a part of one, with home folders expanded."""
    if isinstance(value, dict):
        return {key: item if key in TEXT_KEYS else expand_recipe(item) for key, item in value.items()}
    if isinstance(value, list):
        return [expand_recipe(item) for item in value]
    return expand_home(value) if isinstance(value, str) and value.startswith("~/") else value


def expand_arguments(args: list[str]) -> list[str]:
    """Return a command's arguments with home folders expanded, also after an equals sign."""
    found, before = [], ""
    for arg in args:
        option = _OPTION.fullmatch(arg)
        name = (option[1] or before) if option else ""
        is_text = name.startswith("-") and name.strip("-=").rpartition(".")[2] in TEXT_KEYS
        found.append(f"{option[1] or ''}{expand_home(option[2])}" if option and not is_text else arg)
        before = arg
    return found
