"""Real text in Korean, English, Chinese and Japanese from installed packages.

Prose: the Korean constitution and bills of the National Assembly (konlpy), descriptions of data sets
(scikit-learn). Aligned in the four languages: the interface of JupyterLab (its language packs), the names of
emoji (emoji), and CLDR's names and dates (babel). Nothing is downloaded: text is read from the packages' files or
through their functions, and this repository contains none of it.
"""

import datetime
import importlib.resources
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path

from demo.folder import content_hash
from kebyt5_xm.errors import UserError

LANGUAGES = ("ko", "en", "zh", "ja")
HELD_OUT_ONE_IN = 12  # leaves about 20 kB of each language to validate on
WINDOW = 24  # letters; bills repeat sentences of other bills with different article numbers
BABEL_LOCALES = {"ko": ["ko"], "en": ["en"], "zh": ["zh_Hans", "zh_Hant"], "ja": ["ja"]}
JUPYTERLAB_PACKS = {"ko": "ko_KR", "zh": "zh_CN", "ja": "ja_JP"}
OWN_SCRIPT = {  # entries without these characters are untranslated
    "ko": re.compile("[가-힣]"),
    "en": re.compile("[A-Za-z]{2}"),
    "zh": re.compile("[一-鿿]"),
    "ja": re.compile("[ぁ-ヿ一-鿿]"),
}

Item = list[tuple[str, str]]
"""One thing said in several languages (or in one): (language, text) pairs."""


@dataclass(frozen=True)
class CorpusFiles:
    """One language's corpus: one document per line, UTF-8; sizes in bytes include line ends."""

    train: Path
    heldout: Path
    documents: int
    bytes: int
    heldout_documents: int
    heldout_bytes: int


def write_corpora(folder: Path) -> dict[str, CorpusFiles]:
    """Write LANGUAGE.train.txt and LANGUAGE.heldout.txt for each of the four languages; return them.

    About one item in twelve is held out, chosen by the hash of its text. An aligned item is held out in all its
    languages, together with every item that shares a text or WINDOW letters in a row with it (ignoring case and
    punctuation). So no held-out document or its translation is in a training file. Documents are unique and ordered
    by hash, so any part of a file resembles the whole. The files are the same on every machine with the same package
    versions.
    Raises UserError if one of the packages is not installed.
    """
    try:
        items = [item for source in SOURCES for item in map(_clean, source()) if item]
    except ModuleNotFoundError as error:
        raise UserError(f"the demo's text needs {error.name}; run: pip install 'kebyt5-xm[demo]'") from error
    train: dict[str, set[str]] = {language: set() for language in LANGUAGES}
    heldout: dict[str, set[str]] = {language: set() for language in LANGUAGES}
    for family in _families(items):
        side = heldout if min(content_hash(text) for _, text in family) % HELD_OUT_ONE_IN == 0 else train
        for language, text in family:
            side[language].add(text)
    folder.mkdir(parents=True, exist_ok=True)
    corpora = {}
    for language in LANGUAGES:
        files = {"train": train[language], "heldout": heldout[language]}
        paths = {name: folder / f"{language}.{name}.txt" for name in files}
        for name, texts in files.items():
            lines = "".join(f"{text}\n" for text in sorted(texts, key=content_hash))
            paths[name].write_bytes(lines.encode())
        corpora[language] = CorpusFiles(
            train=paths["train"],
            heldout=paths["heldout"],
            documents=len(train[language]),
            bytes=paths["train"].stat().st_size,
            heldout_documents=len(heldout[language]),
            heldout_bytes=paths["heldout"].stat().st_size,
        )
    return corpora


def korean_law() -> Iterator[Item]:
    """Yield the paragraphs of the constitution and of ten bills."""
    corpus = importlib.resources.files("konlpy") / "data" / "corpus"
    for file in _files(corpus / "kolaw", ".txt"):
        for line in file.read_text("utf-8").splitlines():
            yield [("ko", line)]
    for file in _files(corpus / "kobill", ".txt"):
        # Tables at the end compare old and new wording, with dashes for unchanged parts.
        text = re.split(r"신\s*[·ㆍ․]?\s*구조문", file.read_text("utf-8"))[0]
        paragraph = ""
        for line in text.splitlines():
            if not line.strip() or re.fullmatch(r"\s*-\s*\d+\s*-\s*", line):  # page numbers
                continue
            # Lines are cut at a fixed width, also within words; a space at the cut is kept at the line's end.
            full_width = len(paragraph.splitlines()[-1]) >= 30 if paragraph else False
            if full_width and not line.startswith(" ") and not paragraph.rstrip().endswith("."):
                paragraph += "\n" + line
                continue
            yield [("ko", paragraph.replace("\n", ""))]
            paragraph = line
        yield [("ko", paragraph.replace("\n", ""))]


def english_descriptions() -> Iterator[Item]:
    """Yield the paragraphs of sentences in scikit-learn's descriptions of data sets."""
    for file in _files(importlib.resources.files("sklearn.datasets") / "descr", ".rst"):
        for paragraph in file.read_text("utf-8").split("\n\n"):
            if paragraph.rstrip().endswith(".") and not re.search(
                r"^\s*(\.\.|>>>)|[=|-]{4}", paragraph, re.M
            ):
                yield [("en", re.sub(r"``|:\w+:`", "`", paragraph))]


def jupyterlab_interface() -> Iterator[Item]:
    """Yield the strings of JupyterLab and its extensions; the English string is the key of its translations."""
    aligned: dict[str, Item] = {}
    for language, locale in JUPYTERLAB_PACKS.items():
        package = importlib.resources.files(f"jupyterlab_language_pack_{locale}")
        for file in _files(package / "locale" / locale / "LC_MESSAGES", ".json"):
            for key, translations in json.loads(file.read_text("utf-8")).items():
                english = key.split("\x04")[-1]  # gettext: context, then the message
                if english and translations[0]:  # the empty key is the file's header
                    aligned.setdefault(english, [("en", english)]).append((language, translations[0]))
    yield from aligned.values()


def emoji_names() -> Iterator[Item]:
    """Yield the names of emoji, without skin-tone variants."""
    tables = {"zh": "emoji_zh.json", "ko": "emoji_ko.json", "ja": "emoji_ja.json", "en": "emoji.json"}
    folder = importlib.resources.files("emoji") / "unicode_codes"
    names = {language: json.loads((folder / name).read_text("utf-8")) for language, name in tables.items()}
    for symbol, entry in names["en"].items():
        if not re.search("[\U0001f3fb-\U0001f3ff]", symbol):
            item = [(language, names[language][symbol]) for language in ("ko", "zh", "ja")]
            yield [
                (language, name.strip(":").replace("_", " "))
                for language, name in [*item, ("en", entry["en"])]
            ]


def cldr() -> Iterator[Item]:
    """Yield names of countries, languages, scripts, currencies, units, places and times, and the days of a year."""
    from babel import Locale
    from babel.dates import format_date

    locales = [(language, Locale.parse(name)) for language, names in BABEL_LOCALES.items() for name in names]
    tables = [
        *(
            "territories",
            "languages",
            "variants",
            "scripts",
            "currencies",
            "unit_display_names",
            "time_zones",
        ),
        *("meta_zones", "days", "months", "quarters", "eras", "day_periods"),
    ]
    for table in tables:
        texts = [(language, dict(_leaves(getattr(locale, table)))) for language, locale in locales]
        for key in dict.fromkeys(key for _, entries in texts for key in entries):
            yield [(language, entries[key]) for language, entries in texts if key in entries]
    for day in range(366):
        date = datetime.date(2024, 1, 1) + datetime.timedelta(day)
        yield [(language, format_date(date, "full", locale)) for language, locale in locales]


SOURCES = (korean_law, english_descriptions, jupyterlab_interface, emoji_names, cldr)


def _leaves(table: Mapping, path: tuple = ()) -> Iterator[tuple[tuple, str]]:
    for key, value in table.items():
        if isinstance(value, str):
            yield (*path, key), value
        else:
            yield from _leaves(value, (*path, key))


def _files(folder: Traversable, ending: str) -> list[Traversable]:
    return sorted((f for f in folder.iterdir() if f.name.endswith(ending)), key=lambda f: f.name)


def _clean(item: Item) -> Item:
    """Put each text on one line in NFC; drop texts that are not in the script of their language."""
    lines = [(language, " ".join(unicodedata.normalize("NFC", text).split())) for language, text in item]
    return [
        (language, line) for language, line in lines if len(line) > 1 and OWN_SCRIPT[language].search(line)
    ]


def _families(items: list[Item]) -> list[Item]:
    """Join items that share a text, or WINDOW letters in a row, into families to hold out together."""
    parents: dict[tuple[str, str], tuple[str, str]] = {}

    def root(key: tuple[str, str]) -> tuple[str, str]:
        while parents.setdefault(key, key) != key:
            parents[key] = parents[parents[key]]
            key = parents[key]
        return key

    keys = []
    for item in items:
        letters = [(language, re.sub(r"\W+", "", text.casefold())) for language, text in item]
        keys.append(
            [(x, text[i : i + WINDOW]) for x, text in letters for i in range(max(1, len(text) - WINDOW + 1))]
        )
    for item_keys in keys:
        for key in item_keys:
            parents[root(key)] = root(item_keys[0])
    families: dict[tuple[str, str], Item] = {}
    for item, item_keys in zip(items, keys, strict=True):
        families.setdefault(root(item_keys[0]), []).extend(item)
    return list(families.values())
