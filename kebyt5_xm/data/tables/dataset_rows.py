"""Hugging Face datasets, memory-mapped: a folder written by `save_to_disk`, or `hf:NAME`.

A saved `Dataset` is a folder. For a saved `DatasetDict`, give the folder of one split, such as `saved/train`.

A dataset by name is `hf:NAME?config=C&split=S&revision=R`; each part after `?` is needed only if there is a choice.
NAME is OWNER/NAME on the Hub, or a local folder that starts with `./`, `../` or `/` and holds published files
(parquet, JSON lines, folders of images). The library converts them once to Arrow files in its own cache. It runs no
code of a dataset.

Nothing is copied or held in memory. Images and recordings are returned as stored, `{"bytes", "path"}`; `media`
decodes them. A column of class labels holds numbers, and the added column `NAME.name` holds their names.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TypeVar, cast

import pyarrow

from kebyt5_xm.data.tables.arrow_rows import read_cell
from kebyt5_xm.data.tables.arrow_values import list_column_names
from kebyt5_xm.data.tables.derived import cache_folder, list_derived_paths, read_file_state, write_derived
from kebyt5_xm.data.tables.rows import Row, Rows
from kebyt5_xm.durable import file_digest
from kebyt5_xm.errors import UserError, did_you_mean, first_line

if TYPE_CHECKING:
    from datasets import Dataset, DatasetBuilder

Result = TypeVar("Result")

NO_LABEL = -1
"""What the library stores for a row without a label."""
DIGEST_SUFFIX, VERSION = ".digest", 1
SCHEME = "hf:"
PARAMETERS = ("config", "split", "revision")
_SPLIT = re.compile(r"\w+(\.\w+)*")
"""A plain split name. Anything else, such as `train[:10%]` or `train+test`, selects rows."""


class DatasetRows(Rows):
    """The rows of a dataset of the library `datasets`, memory-mapped from its Arrow files.

    The fingerprint is a hash of these files, which are read once; the library's own fingerprint depends on how and
    where a dataset was made. A pickled copy maps the same files and does not contact the Hub.
    """

    def __init__(self, path: Path, name: str, dataset: "Dataset", fingerprint: str) -> None:
        super().__init__(path)
        self.name = name
        self.fingerprint = fingerprint
        self._dataset = dataset
        self._labels = {
            column: feature.names
            for column, feature in dataset.features.items()
            if type(feature).__name__ == "ClassLabel"
        }
        self._label_columns = {f"{column}.name": column for column in self._labels}
        """Added column of label names -> column of label numbers."""
        self._names = dict.fromkeys((*dataset.column_names, *self._label_columns))

    def __len__(self) -> int:
        return len(self._dataset)

    def row(self, index: int) -> Mapping[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        try:
            table = cast(pyarrow.Table, self._dataset[index : index + 1])
        except (ValueError, OSError, pyarrow.ArrowException) as error:
            raise self.error(index, f"{type(error).__name__}: {error}") from None

        def read(name: str) -> Any:
            if name not in self._label_columns:
                return read_cell(table.column(name).chunk(0), 0, name, self.place(index))
            column = self._label_columns[name]
            label = read_cell(table.column(column).chunk(0), 0, column, self.place(index))
            if label is None or label == NO_LABEL:
                return None
            names = self._labels[column]
            if not 0 <= label < len(names):
                raise self.error(index, f"column '{column}' is {label}, expected 0 to {len(names) - 1}")
            return names[label]

        return Row(self._names, read)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        return (*list_column_names(self._dataset.features.arrow_schema), *self._label_columns)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.name, self._dataset, self.fingerprint)


def is_saved_dataset(path: Path) -> bool:
    """Return whether `path` is a folder written by `save_to_disk`."""
    return any((path / file).is_file() for file in ("state.json", "dataset_dict.json"))


def open_saved_dataset(path: Path) -> DatasetRows:
    """Open a folder written by `save_to_disk`; raise `UserError` if it holds several splits or is damaged."""
    if (path / "dataset_dict.json").is_file():
        try:
            splits = json.loads((path / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"'{path}/dataset_dict.json' is damaged; save the dataset again") from error
        raise UserError(
            f"found the splits {', '.join(splits)} in {path}, expected one; name its folder: {path}/{splits[0]}"
        )
    dataset = call_library(
        str(path), lambda: import_datasets().load_from_disk(str(path), keep_in_memory=False)
    )
    return wrap_dataset(path, str(path), dataset)


def wrap_dataset(path: Path, name: str, dataset: "Dataset", selection: str = "") -> DatasetRows:
    """Return the rows of an open dataset. `selection` names the split expression if it selects only some rows."""
    files = [Path(file["filename"]) for file in dataset.cache_files]
    digest = hashlib.blake2b(json.dumps([_read_digests(path, files), selection]).encode(), digest_size=16)
    # The Arrow format returns stored values: no image or recording is decoded, even in nested columns.
    return DatasetRows(path, name, dataset.with_format("arrow"), digest.hexdigest())


def _read_digests(path: Path, files: Sequence[Path]) -> list[str]:
    """Return the digests of the files; take them from the digest file if the files are unchanged."""
    about = {"version": VERSION, "files": [[file.name, read_file_state(file)] for file in files]}
    for place in list_derived_paths(path, DIGEST_SUFFIX):
        with suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads(place.read_text(encoding="utf-8"))
            if found["about"] == about:
                return found["digests"]
    digests = [file_digest(file) for file in files]

    def write(file: BinaryIO) -> None:
        file.write(json.dumps({"about": about, "digests": digests}).encode())

    with suppress(UserError):  # cannot be written anywhere: the files are read again next time
        write_derived(path, DIGEST_SUFFIX, write)
    return digests


def call_library(name: str, call: Callable[[], Result]) -> Result:
    """Return the result of `call`; turn the library's many error classes into a `UserError` for dataset `name`."""
    try:
        return call()
    except UserError:
        raise
    except ConnectionError as error:
        raise UserError(
            f"cannot reach the dataset '{name}' ({first_line(error)}); unset HF_HUB_OFFLINE if there is a network, "
            f"else download it on a machine with one (`hf download {name} --repo-type dataset --local-dir FOLDER`) "
            f"and write hf:./FOLDER"
        ) from error
    except Exception as error:
        raise UserError(
            f"cannot open the dataset '{name}' ({type(error).__name__}: {first_line(error)}); correct its name, get "
            "it again if it is damaged, or log in with `hf auth login` if it is private or gated"
        ) from error


def import_datasets() -> Any:
    """Return the library `datasets`, which takes seconds to import; raise `UserError` if it is not installed."""
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            "this manifest needs the library `datasets`, which is not installed; install 'kebyt5-xm[hub]'"
        ) from error
    return datasets


class DatasetName(NamedTuple):
    """The parts of `hf:NAME?config=C&split=S&revision=R`."""

    name: str
    config: str | None = None
    split: str | None = None
    revision: str | None = None

    @property
    def is_local(self) -> bool:
        return self.name.startswith(("./", "../", "/"))


def open_named_dataset(text: str) -> DatasetRows:
    """Open `hf:NAME?config=C&split=S&revision=R`; download what is not in the library's cache.

    Raises `UserError` for a malformed text, an unknown name, an unknown configuration or split (the error lists the
    known ones), and if the network is needed but missing.
    """
    name = parse_dataset_name(text)
    if not name.is_local and Path(name.name).exists():
        raise UserError(
            f"found a local folder '{name.name}', expected a name on the Hub; write {SCHEME}./{name.name} to read "
            "the folder, or start in another folder"
        )
    if name.is_local and not Path(name.name).is_dir():
        raise UserError(f"found no folder {name.name}, expected one with a dataset's files; correct {text}")
    builder = _make_builder(name)
    if not builder.info.splits and builder.config.data_files:
        _check_split(name, list(builder.config.data_files))  # before anything is downloaded
    call_library(name.name, builder.download_and_prepare)
    splits = list(builder.info.splits or ())
    _check_split(name, splits)
    split = name.split or splits[0]
    dataset = call_library(name.name, lambda: builder.as_dataset(split=split, in_memory=False))
    assert not isinstance(dataset, dict)  # a dict would be all splits
    slug = re.sub(r"\W+", "-", name.name).strip("-")
    place = os.path.abspath(name.name) if name.is_local else name.name
    key = hashlib.blake2b(repr((place, *name[1:])).encode(), digest_size=8).hexdigest()
    path = cache_folder() / "datasets" / f"{slug}-{key}"
    return wrap_dataset(path, text, dataset, "" if _SPLIT.fullmatch(split) else split)


def parse_dataset_name(text: str) -> DatasetName:
    """Parse `hf:NAME?config=C&split=S&revision=R`; raise `UserError` if it is malformed."""
    name, _, query = text.removeprefix(SCHEME).partition("?")
    wanted = f"expected {SCHEME}NAME?config=C&split=S&revision=R, where the parts after ? are optional"
    if not name or "://" in text or name.startswith("//"):
        raise UserError(
            f"found '{text}', {wanted} and NAME is OWNER/NAME or a folder that starts with ./, ../ or /"
        )
    parts: dict[str, str] = {}
    for part in query.split("&") if query else ():
        key, _, value = part.partition("=")
        if key not in PARAMETERS or not value or key in parts:
            raise UserError(f"found '{part}' in '{text}', {wanted}{did_you_mean(key, PARAMETERS)}")
        parts[key] = value
    found = DatasetName(name, **parts)
    if found.is_local and found.revision:
        raise UserError(f"found a revision in '{text}', but a folder has no revisions; remove it")
    return found


def _make_builder(name: DatasetName) -> "DatasetBuilder":
    datasets = import_datasets()

    def make() -> "DatasetBuilder":
        return datasets.load_dataset_builder(name.name, name.config, revision=name.revision)

    try:
        return make()
    except ValueError:  # an unknown configuration, or none named although there are several
        known = call_library(
            name.name, lambda: datasets.get_dataset_config_names(name.name, revision=name.revision)
        )
        if name.config in known:
            return call_library(name.name, make)
        found = f"the configuration '{name.config}'" if name.config else "no configuration"
        raise UserError(
            f"found {found} for the dataset '{name.name}', expected one of: {', '.join(known)}"
            f"{did_you_mean(name.config or '', known)}; write ?config=NAME"
        ) from None
    except Exception:
        return call_library(name.name, make)


def _check_split(name: DatasetName, splits: Sequence[str]) -> None:
    used = re.findall(r"(?:^|\+)\s*(\w+(?:\.\w+)*)", name.split or "")
    wrong = next((split for split in used if split not in splits), None)
    if wrong or (len(splits) > 1 and not used):
        found = f"the split '{wrong}'" if wrong else "no split"
        raise UserError(
            f"found {found} for the dataset '{name.name}', expected one of: {', '.join(splits)}"
            f"{did_you_mean(wrong or '', splits)}; write ?split=NAME"
        )
