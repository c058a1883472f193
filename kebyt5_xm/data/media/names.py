"""Names of files as rows and commands give them: their kind, their other Unicode form, what to say where there is no
such file, and `~/`.

`~/` where a path begins is the home folder: in every value of a recipe, and in every argument of a command. A shell
knows it at the start of a word alone, not in `--out=~/x`, and YAML not at all. What is text stays as it is.
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
"""Characters from which on a name that no file system takes may be a file's content. Our own choice."""
MEDIA_OF_SUFFIX: "dict[str, Media]" = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".jp2"), "image"),
    **dict.fromkeys((".avif", ".heic"), "image"),
    **dict.fromkeys((".wav", ".flac", ".mp3", ".mp2", ".ogg", ".oga", ".opus", ".aac", ".amr"), "audio"),
    **dict.fromkeys((".m4a", ".m4b", ".mp4", ".3gp", ".mka", ".webm"), "audio"),
    **dict.fromkeys((".aif", ".aiff", ".caf", ".w64", ".pcm"), "audio"),
    **dict.fromkeys((".npy", ".npz", ".safetensors"), "array"),
}
"""Usual names of media, for columns of paths and for files that are missing or damaged.

Which of them are read is not decided here but by what is in a file. `.au` is not here: addresses in Australia end so.
"""
TEXT_KEYS = ("prompt", "target", "labels", "language", "pattern", "class_path")
"""Keys of recipes, and options of commands, whose values are never paths."""
_OPTION = re.compile(r"(--?[\w.-]+=|[\w.-]+=)?(~/.*)", re.DOTALL)


def guess_media(path: str) -> "Media | None":
    """Return the kind of medium that a file of this name usually is; None for any other name."""
    return MEDIA_OF_SUFFIX.get(os.path.splitext(path)[1].lower())


def find_stored_path(root: str, reference: str) -> str:
    """Return `reference` below `root` as a path, each name in the Unicode form in which it is there.

    macOS and the archives it makes hold decomposed names (NFD), most manifests composed ones (NFC). A name that is
    there as given is taken so; one that is there in no form stays as given.
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
    """Return why there is nothing at `path`, with the name that was meant where it can be told."""
    if error.errno == errno.ENAMETOOLONG:
        cause = f"found a path of {len(os.fsencode(path))} bytes, longer than the file system takes"
        if len(path) > MIN_BASE64_LENGTH and re.fullmatch(r"[A-Za-z0-9+/=_\s-]+", path[-MIN_BASE64_LENGTH:]):
            cause += "; if it is a file's content in base64, write it as 'data:;base64,...'"
        return cause
    name = os.path.basename(path)
    if re.search(r"(^|/)[A-Za-z]:\\", path):
        return (
            "there is no such file; it is a path of Windows: write it relative to the manifest, with slashes"
        )
    for meant in _similar_names(name):
        if meant != name and meant and os.path.lexists(os.path.join(os.path.dirname(path), meant)):
            return f"there is no such file; did you mean {meant!r}?"
    return "there is no such file"


def _similar_names(name: str) -> Iterator[str]:
    """Yield names that are often meant: looked up one by one, as a folder may hold millions."""
    stem, suffix = os.path.splitext(name)
    yield name.replace("\\", "/")
    yield name.strip()
    yield unquote(name)
    yield from (stem + suffix.lower(), stem + suffix.upper(), stem + suffix.capitalize())
    yield from (name.lower(), name.upper(), name.capitalize(), stem.upper() + suffix.lower())


def expand_home(path: str) -> str:
    """Return a path with the home folder in the place of `~`."""
    return os.path.expanduser(path) if path == "~" or path.startswith("~/") else path


def expand_recipe(value: Any) -> Any:
    """Return a recipe, or a part of one, with `expand_home` paths."""
    if isinstance(value, dict):
        return {key: item if key in TEXT_KEYS else expand_recipe(item) for key, item in value.items()}
    if isinstance(value, list):
        return [expand_recipe(item) for item in value]
    return expand_home(value) if isinstance(value, str) and value.startswith("~/") else value


def expand_arguments(args: list[str]) -> list[str]:
    """Return a command's arguments with `expand_home` paths, also behind an equals sign."""
    found, before = [], ""
    for arg in args:
        option = _OPTION.fullmatch(arg)
        name = (option[1] or before) if option else ""
        is_text = name.startswith("-") and name.strip("-=").rpartition(".")[2] in TEXT_KEYS
        found.append(f"{option[1] or ''}{expand_home(option[2])}" if option and not is_text else arg)
        before = arg
    return found
