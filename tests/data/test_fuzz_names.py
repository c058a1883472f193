"""Tests a list of nasty names wherever a name can occur: each works, or is refused with its cause."""

import io
import json
import os
import tarfile
import unicodedata
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import yaml
from fuzzing import encode_image

from encoders.stems import PatchEncoder
from kebyt5_xm.adapters import Linear
from kebyt5_xm.data import Manifest
from kebyt5_xm.data.sources.source import Selection
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.modality import interface
from kebyt5_xm.training import recipes

NAMES = [
    "각하",
    unicodedata.normalize("NFD", "각하"),
    "Ångström",
    unicodedata.normalize("NFD", "Ångström"),
    "日本 語",
    "🙂",
    "a b",
    " a",
    "a ",
    "a.",
    "a\tb",
    "a\nb",
    "a\r\nb",
    "a\u2028b",
    "a\u200bb",
    "\u202eabc",
    "a'b",
    'a"b',
    "a`b",
    "a\\b",
    "$HOME",
    "~",
    "~root",
    "-c",
    "--help",
    "*",
    "a?",
    "[x]",
    "{0..3}",
    "{a}",
    "{{a}}",
    "}",
    "a:b",
    "a::b",
    "http:",
    "data:,a",
    "a#b",
    "a%20b",
    "a%",
    "a&b=c",
    "a;b",
    "a,b",
    "a|b",
    "<a>",
    "&amp;",
    "no",
    "on",
    "null",
    "true",
    "1",
    "1.0",
    "1e3",
    "0x1f",
    "1:30",
    "2026-11-27",
    "=",
    "<<",
    "!a",
    "&a",
    ".hidden",
    "_a",
    "__a__",
    "a.b.c",
    "a.jsonl",
    "a.index",
    "a.rows",
    "a.lengths-0",
    "con",
    "a" * 200,
    "가" * 66,  # 198 bytes
]
"""Valid file names: no slash, no NUL, at most 200 bytes, so that a suffix still fits."""

ROW = {"image": "a.png", "caption": "새 한 마리"}


def in_file(folder: Path, name: str) -> dict[str, Any]:
    (folder / f"{name}.png").write_bytes(encode_image())
    return write_manifest(folder / "rows.jsonl", {**ROW, "image": f"{name}.png"})


def in_folder_of_files(folder: Path, name: str) -> dict[str, Any]:
    (folder / name).mkdir()
    (folder / name / "a.png").write_bytes(encode_image())
    return write_manifest(folder / "rows.jsonl", {**ROW, "image": f"{name}/a.png"})


def in_manifest(folder: Path, name: str) -> dict[str, Any]:
    (folder / "a.png").write_bytes(encode_image())
    return write_manifest(folder / f"{name}.jsonl", ROW)


def in_folder(folder: Path, name: str) -> dict[str, Any]:
    (folder / name).mkdir()
    (folder / name / "a.png").write_bytes(encode_image())
    return write_manifest(folder / name / "rows.jsonl", ROW)


def in_pattern(folder: Path, name: str) -> dict[str, Any]:
    return in_folder(folder, name) | {"path": str(folder / name / "rows*.jsonl")}


def in_column(folder: Path, name: str) -> dict[str, Any]:
    (folder / "a.png").write_bytes(encode_image())
    found = write_manifest(folder / "rows.jsonl", {**ROW, name: "ko"})
    escaped = name.replace("{", "{{").replace("}", "}}")
    return found | {"prompt": "{image:image} {" + escaped + "}: "}


def in_parquet_column(folder: Path, name: str) -> dict[str, Any]:
    found = in_column(folder, name)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{**ROW, name: "ko"}]), folder / "rows.parquet")
    return found | {"path": str(folder / "rows.parquet")}


def in_target(folder: Path, name: str) -> dict[str, Any]:
    (folder / "a.png").write_bytes(encode_image())
    return write_manifest(folder / "rows.jsonl", {**ROW, "caption": name}) | {"labels": [name, "다른 말"]}


def in_shard(folder: Path, name: str) -> dict[str, Any]:
    with tarfile.open(folder / "rows.tar", "w") as archive:
        for suffix, content in (("png", encode_image()), ("txt", b"\xec\x83\x88")):
            member = tarfile.TarInfo(f"{name}.{suffix}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return {"path": str(folder / "rows.tar"), "prompt": "{png:image} ", "target": "{txt}"}


def write_manifest(path: Path, row: dict[str, Any]) -> dict[str, Any]:
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    return {"path": str(path), "prompt": "{image:image} 설명: ", "target": "{caption}"}


PLACES: dict[str, Callable[[Path, str], dict[str, Any]]] = {
    make.__name__.removeprefix("in_"): make
    for make in (
        in_file,
        in_folder_of_files,
        in_manifest,
        in_folder,
        in_pattern,
        in_column,
        in_parquet_column,
        in_target,
        in_shard,
    )
}
REFUSED: dict[str, Callable[[str], bool]] = {
    # fsspec URLs; the part before :// is a protocol
    "file": lambda name: name.startswith("data:"),
    "folder_of_files": lambda name: name in ("http:", "~") or name.startswith("data:"),
    # columns are named in a template, where braces and colons have a meaning
    "column": lambda name: any(c in name for c in "{}:"),
    "parquet_column": lambda name: any(c in name for c in "{}:"),
    # a shard's row is named by the part before the first dot; `.hidden` and `__a__` are no rows
    "shard": lambda name: name.startswith((".", "__")) or "." in name,
}
"""Where a name may be refused; everywhere else it must work."""


@pytest.mark.parametrize("place", PLACES)
def test_every_name_works_everywhere_or_is_refused_with_a_cause(place: str, tmp_path: Path) -> None:
    interfaces = {"image": interface(PatchEncoder(image_size=16, out_dim=8), Linear, 16)}
    for number, name in enumerate(NAMES):
        folder = tmp_path / str(number)
        folder.mkdir()
        arguments = PLACES[place](folder, name)
        try:
            source = Manifest(**arguments)
            source.connect(interfaces)
            source.prepare(1, lambda _: None)
            zeros = np.zeros(1, dtype=np.int64)
            (example,) = source.load(Selection(zeros, zeros, zeros.astype(np.uint64), 0, held_out=False))
            refused = example.skipped.cause if example.skipped else None
        except UserError as error:
            refused = str(error)
        if refused is None:
            assert len(example.media) == 1, (place, name)
            continue
        assert REFUSED.get(place, lambda _: False)(name), (place, name, refused)
        assert len(refused.splitlines()) == 1, (place, name, refused)
        assert len(refused) < 700, (place, name, refused)
    # Nothing was written outside the given folders.
    assert sorted(os.listdir(tmp_path)) == sorted(str(number) for number in range(len(NAMES)))


MAPPINGS = {
    "sources": lambda name: {"data": {"sources": {name: {"class_path": "kebyt5_xm.data.Manifest"}}}},
    "modalities": lambda name: {"model": {"modalities": {name: {"encoder": {"class_path": "e.E"}}}}},
    "groups": lambda name: {"model": {"groups": {name: {"pattern": "x"}}}},
    "lora": lambda name: {"model": {"lora": {name: {"pattern": "x"}}}},
    "stores": lambda name: {"data": {"sources": {"s": {"init_args": {"stores": {name: "p"}}}}}},
    "labels": lambda name: {"data": {"sources": {"s": {"init_args": {"labels": {name: "w"}}}}}},
}
SCALARS = [
    *("no", "No", "yes", "on", "Off", "y", "n", "true", "FALSE", "1", "1.0", "-0", "+1", "1e3", "1.", ".5"),
    *("0x1f", "0o17", "012", "0b1", "1_000", "1:30", "190:20:30", "2026-11-27", "2026-11-27T01:02:03Z"),
    *(".inf", "-.inf", ".NaN", "=", "1.10", "007", "''", '"no"', "'1'", "'null'", "e3", "1,000"),
]
"""Spelled as in a file. YAML readers turn them into texts, numbers, booleans or dates."""


@pytest.mark.parametrize("place", MAPPINGS)
def test_recipe_keys_are_read_as_text(place: str, tmp_path: Path) -> None:
    for scalar in SCALARS:
        wanted = yaml.compose(scalar).value
        text = yaml.safe_dump(MAPPINGS[place]("KEY")).replace("KEY", scalar)
        assert scalar in text
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        assert recipes.merge([str(path)]) == MAPPINGS[place](wanted) | {}, (place, scalar)


def source_with(key: str, scalar: str) -> str:
    source = {"class_path": "kebyt5_xm.data.Manifest", "init_args": {key: "VALUE"}}
    return yaml.safe_dump({"data": {"sources": {"s": source}}}).replace("VALUE", scalar)


@pytest.mark.parametrize("key", ["prompt", "target", "path", "references"])
def test_recipe_values_are_read_as_text(key: str, tmp_path: Path) -> None:
    for scalar, is_overlay in product(SCALARS, (False, True)):
        path = tmp_path / "recipe.yaml"
        path.write_text(source_with(key, "other" if is_overlay else scalar), encoding="utf-8")
        paths = [str(path)]
        if is_overlay:
            over = tmp_path / "over.yaml"
            over.write_text(source_with(key, scalar), encoding="utf-8")
            paths.append(str(over))
        written = tmp_path / "merged.yaml"
        written.write_text(recipes.to_yaml(recipes.merge(paths)), encoding="utf-8")
        # Both our reader and a plain YAML parser read what a run saves.
        for loaded in (recipes.merge([str(written)]), yaml.safe_load(written.read_text(encoding="utf-8"))):
            assert loaded["data"]["sources"]["s"]["init_args"][key] == yaml.compose(scalar).value, (
                key,
                scalar,
            )
