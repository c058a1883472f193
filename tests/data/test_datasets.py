"""Hugging Face datasets as manifests: saved folders, and datasets by name (here: local published folders)."""

import io
import multiprocessing
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from encoders.stems import PatchEncoder
from kebyt5_xm.adapters import Linear
from kebyt5_xm.data import Manifest
from kebyt5_xm.data.sources.manifest import open_rows
from kebyt5_xm.data.sources.source import Selection
from kebyt5_xm.data.tables.dataset_rows import DatasetName, parse_dataset_name
from kebyt5_xm.data.tables.rows import Rows
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.modality import interface

pytestmark = pytest.mark.slow  # importing the library alone takes seconds
datasets = pytest.importorskip("datasets")

LABELS = ["고양이", "개", "새"]
TRAIN, TEST = 211, 13
CARD = """---
configs:
- config_name: pictures
  data_files:
  - {split: train, path: data/train-*}
  - {split: test, path: data/test-*}
- config_name: small
  data_files: data/test-*
---
"""


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (19, 23, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def expected(n: int) -> dict[str, Any]:
    label = n % 4 - 1  # one of every four rows has no label
    return {
        "text": f"그림 {n}",
        "label": label,
        "image": {"bytes": b"broken" if n == 7 else png(n), "path": None},
        "pages": [{"bytes": png(n), "path": None}] * (n % 3),
        "label.name": LABELS[label] if label >= 0 else None,
    }


def make_dataset(count: int) -> Any:
    rows = [{k: v for k, v in expected(n).items() if k != "label.name"} for n in range(count)]
    features = datasets.Features(
        text=datasets.Value("string"),
        label=datasets.ClassLabel(names=LABELS),
        image=datasets.Image(),
        pages=datasets.List(datasets.Image()),
    )
    return datasets.Dataset.from_list(rows, features=features)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KEBYT5_XM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "library"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`saved` and `both`, written by `save_to_disk`, and `published`, laid out like a Hub repository."""
    folder = tmp_path_factory.mktemp("datasets")
    train, test = make_dataset(TRAIN), make_dataset(TEST)
    train.save_to_disk(folder / "saved", num_shards=3)
    datasets.DatasetDict(train=train, test=test).save_to_disk(folder / "both")
    (folder / "published" / "data").mkdir(parents=True)
    train.to_parquet(folder / "published" / "data" / "train-00000-of-00001.parquet")
    test.to_parquet(folder / "published" / "data" / "test-00000-of-00001.parquet")
    (folder / "published" / "README.md").write_text(CARD)
    return folder


def published(folder: Path, query: str) -> str:
    return f"hf:{folder / 'published'}?{query}"


def read_in_process(rows: Rows, number: int, queue: Any) -> None:
    queue.put((len(rows), rows.row(number), rows.fingerprint))


def test_rows_are_returned_as_stored(folder: Path) -> None:
    for path in (
        folder / "saved",
        folder / "both" / "train",
        published(folder, "config=pictures&split=train"),
    ):
        rows = open_rows(path)
        assert len(rows) == TRAIN
        within = ("image.bytes", "image.path")
        assert rows.columns == ("text", "label", "image", *within, "pages", "label.name")
        for number in (0, 210, 7, 104):
            assert rows.row(number) == expected(number), path
            assert rows.place(number) == (str(path), number + 1)
        for number in (-1, TRAIN):
            with pytest.raises(IndexError):
                rows.row(number)
        copy = pickle.loads(pickle.dumps(rows))
        assert (copy.path, copy.name, copy.fingerprint) == (rows.path, rows.name, rows.fingerprint)
        assert copy.row(17) == expected(17)


def test_another_process_reads_the_same_files_without_the_hub(folder: Path) -> None:
    rows = open_rows(published(folder, "config=pictures&split=test"))
    shutil.copytree(folder / "published", folder / "aside")
    shutil.rmtree(folder / "published")
    try:
        context = multiprocessing.get_context("spawn")
        queue = context.Queue()
        process = context.Process(target=read_in_process, args=(rows, 5, queue))
        process.start()
        assert queue.get(timeout=240) == (TEST, expected(5), rows.fingerprint)
        process.join()
    finally:
        (folder / "aside").rename(folder / "published")


def test_the_fingerprint_depends_on_the_content_alone(folder: Path, tmp_path: Path, cache: Path) -> None:
    rows = open_rows(folder / "saved")
    shutil.copytree(folder / "saved", tmp_path / "elsewhere")
    assert open_rows(tmp_path / "elsewhere").fingerprint == rows.fingerprint
    written = tmp_path / "elsewhere.digest"
    identity = written.stat().st_ino
    assert open_rows(tmp_path / "elsewhere").fingerprint == rows.fingerprint
    assert written.stat().st_ino == identity, "read once"
    changed = tmp_path / "elsewhere" / "data-00001-of-00003.arrow"
    raw = changed.read_bytes()
    assert raw.count("그림 100".encode()) == 1
    changed.write_bytes(raw.replace("그림 100".encode(), "그림 ㄱㄴ".encode()[: len("그림 100".encode())]))
    assert open_rows(tmp_path / "elsewhere").fingerprint != rows.fingerprint
    shutil.rmtree(tmp_path / "elsewhere")
    for choice in ("config=pictures&split=test", "config=small"):
        assert len(open_rows(published(folder, choice))) == TEST
    prints = {
        open_rows(published(folder, f"config=pictures&split={split}")).fingerprint
        for split in ("train", "train[:10%]", "train[10%:20%]", "test", "train+test")
    }
    assert len(prints) == 5
    part = open_rows(published(folder, "config=pictures&split=train[101:103]"))
    assert [part.row(n) for n in range(len(part))] == [expected(101), expected(102)]


def test_examples_from_images_stored_in_a_dataset(folder: Path, cache: Path) -> None:
    path = published(folder, "config=pictures&split=train")
    source = Manifest(path, "{image:image} 무엇? ", "{label.name}", validation=str(folder / "both" / "test"))
    source.connect({"image": interface(PatchEncoder(image_size=16, out_dim=8), Linear, 16)})
    source.prepare(1, lambda _: None)
    without_label = len([n for n in range(TRAIN) if n % 4 == 0])
    assert source.impossible() == (without_label + 1, TRAIN)
    assert len(list(cache.glob("datasets/*.lengths-*"))) == 1
    rows = np.array([5, 7, 8])
    good, broken, unlabelled = source.load(
        Selection(np.zeros(3, np.int64), rows, rows.astype(np.uint64), 0, False)
    )
    assert (bytes((good.target_ids[:-1] - 3).astype(np.uint8)).decode(), len(good.media)) == (LABELS[0], 1)
    assert broken.skipped is not None
    assert broken.skipped.cause.startswith("found no readable image of the formats")
    assert unlabelled.skipped is not None
    assert (unlabelled.skipped.path, unlabelled.skipped.line) == (path, 9)
    assert unlabelled.skipped.cause == "column 'label.name' is null"


def test_parse_name_returns_all_parts() -> None:
    assert parse_dataset_name("hf:klue/klue?config=ynat&split=train&revision=abc") == DatasetName(
        "klue/klue", "ynat", "train", "abc"
    )
    assert parse_dataset_name("hf:squad") == DatasetName("squad")
    assert parse_dataset_name("hf:../x?split=a[:10%]+b") == DatasetName("../x", None, "a[:10%]+b")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hf:", r"expected hf:NAME\?config=C&split=S&revision=R"),
        ("hf://datasets/klue/klue", "NAME is OWNER/NAME or a folder"),
        ("hf:klue/klue?spilt=train", "found 'spilt=train' in .*did you mean 'split'"),
        ("hf:klue/klue?split=", "found 'split='"),
        ("hf:klue/klue?split=a&split=b", "found 'split=b'"),
        ("hf:./published?revision=main", "a folder has no revisions"),
        ("hf:./absent", "found no folder ./absent"),
        ("hf:published?config=small", "write hf:./published to read the folder"),
        ("hf:./published", "found no configuration .*expected one of: pictures, small; write"),
        (
            "hf:./published?config=pictres",
            "'pictres' .*expected one of: pictures, small; did you mean 'pictures'",
        ),
        ("hf:./published?config=pictures", "found no split .*expected one of: train, test; write"),
        ("hf:./published?config=pictures&split=trian", "'trian' .*: train, test; did you mean 'train'"),
        ("hf:./published?config=pictures&split=test+vali[:3]", "'vali' for"),
        ("hf:./published?config=pictures&split=train[x]", "cannot open the dataset"),
        (
            "hf:owner/absent",
            "cannot reach the dataset 'owner/absent' .*unset HF_HUB_OFFLINE .*hf download owner/absent",
        ),
        ("both", "found the splits train, test in .*both, expected one; name its folder: .*both/train"),
        ("damaged", "cannot open the dataset"),
    ],
)
def test_mistakes_are_refused_with_a_remedy(
    folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    monkeypatch.chdir(folder)
    if text == "damaged":
        shutil.copytree("saved", "damaged")
        for file in Path("damaged").glob("*.arrow"):
            file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(UserError, match=words) as caught:
        open_rows(text)
    assert "\n" not in str(caught.value)
