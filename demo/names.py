"""Names in four languages, to classify by kind: country, language or emoji."""

import unicodedata
from pathlib import Path

from demo.folder import Manifests, content_hash, write_manifests
from demo.text import BABEL_LOCALES, LANGUAGES, OWN_SCRIPT, emoji_names
from kebyt5_xm.errors import UserError

KINDS = ("territory", "language", "emoji")
HELD_OUT_ONE_IN = 8
MAX_PER_KIND = 300
"""Most things per kind: there are far more emoji than countries."""


def write_names(folder: Path) -> Manifests:
    """Write train.jsonl and heldout.jsonl; return the manifests.

    Columns: name, kind, language (ko, en, zh, ja). All names of a thing are on one side, and no name is on both.
    Raises UserError if babel or emoji is not installed.
    """
    try:
        things = [(kind, names) for kind in KINDS for names in _select_names(kind)]
    except ModuleNotFoundError as error:
        raise UserError(f"the demo's names need {error.name}; run: pip install 'kebyt5-xm[demo]'") from error
    folder.mkdir(parents=True, exist_ok=True)
    train: dict[str, dict] = {}
    heldout: dict[str, dict] = {}
    for kind, names in things:
        side = heldout if content_hash(names["en"].casefold()) % HELD_OUT_ONE_IN == 0 else train
        for language, name in names.items():
            side.setdefault(name, {"name": name, "kind": kind, "language": language})
    shared = train.keys() & heldout.keys()  # such as Georgia, the country, and another thing of that name
    unshared = [row for name, row in heldout.items() if name not in shared]
    return write_manifests(folder, list(train.values()), unshared)


def _select_names(kind: str) -> list[dict[str, str]]:
    """Return language -> name of at most `MAX_PER_KIND` things, ordered by the hash of the English name."""
    things = [names for names in _all_names(kind) if len(names) == len(LANGUAGES)]
    return sorted(things, key=lambda names: content_hash(names["en"]))[:MAX_PER_KIND]


def _all_names(kind: str) -> list[dict[str, str]]:
    if kind == "emoji":
        return [_own_script_names(dict(item)) for item in emoji_names()]
    from babel import Locale

    tables = {
        language: getattr(
            Locale.parse(BABEL_LOCALES[language][0]), "territories" if kind == KINDS[0] else "languages"
        )
        for language in LANGUAGES
    }
    keys = [key for key in tables["en"] if not key.isdigit()]  # numbers are continents
    return [
        _own_script_names({language: table.get(key, "") for language, table in tables.items()})
        for key in keys
    ]


def _own_script_names(names: dict[str, str]) -> dict[str, str]:
    """Return the names that are written in the script of their language."""
    composed = {language: unicodedata.normalize("NFC", name) for language, name in names.items()}
    return {language: name for language, name in composed.items() if OWN_SCRIPT[language].search(name)}
