"""Names in four languages and what they name: a country, a language or an emoji. A classification of real text."""

import unicodedata
from pathlib import Path

from demo.manifests import Manifests, content_hash, write_manifests
from demo.text import BABEL_LOCALES, LANGUAGES, OWN_SCRIPT, emoji_names
from kebyt5_xm.errors import UserError

KINDS = ("territory", "language", "emoji")
HELD_OUT_ONE_IN = 8
MOST_OF_A_KIND = 300
"""Things of one kind: there are far more emoji than countries."""


def write_names(folder: Path) -> Manifests:
    """Write train.jsonl and heldout.jsonl; return the manifests.

    Columns: name, kind, language (ko, en, zh, ja). A thing is on one side in all its languages, and so is all that
    shares a name with it. Raises UserError if babel or emoji is not installed.
    """
    try:
        things = [(kind, names) for kind in KINDS for names in _chosen(kind)]
    except ModuleNotFoundError as error:
        raise UserError(f"the demo's names need {error.name}; run: pip install 'kebyt5-xm[demo]'") from error
    folder.mkdir(parents=True, exist_ok=True)
    train: dict[str, dict] = {}
    heldout: dict[str, dict] = {}
    for kind, names in things:
        side = heldout if content_hash(names["en"].casefold()) % HELD_OUT_ONE_IN == 0 else train
        for language, name in names.items():
            side.setdefault(name, {"name": name, "kind": kind, "language": language})
    shared = train.keys() & heldout.keys()  # as Georgia, the country, and its namesake
    kept = [row for name, row in heldout.items() if name not in shared]
    return write_manifests(folder, list(train.values()), kept)


def _chosen(kind: str) -> list[dict[str, str]]:
    """Return language -> name of the things of one kind, by the hash of the English name."""
    things = [names for names in _all(kind) if len(names) == len(LANGUAGES)]
    return sorted(things, key=lambda names: content_hash(names["en"]))[:MOST_OF_A_KIND]


def _all(kind: str) -> list[dict[str, str]]:
    if kind == "emoji":
        return [_own(dict(item)) for item in emoji_names()]
    from babel import Locale

    tables = {
        language: getattr(
            Locale.parse(BABEL_LOCALES[language][0]), "territories" if kind == KINDS[0] else "languages"
        )
        for language in LANGUAGES
    }
    keys = [key for key in tables["en"] if not key.isdigit()]  # numbers are continents
    return [_own({language: table.get(key, "") for language, table in tables.items()}) for key in keys]


def _own(names: dict[str, str]) -> dict[str, str]:
    """Return the names that are written in their own language."""
    composed = {language: unicodedata.normalize("NFC", name) for language, name in names.items()}
    return {language: name for language, name in composed.items() if OWN_SCRIPT[language].search(name)}
