"""Augmented sources: functions of the seed and the example's number, exact lengths, held-out rows as they are."""

import pickle
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_media
import torch
from torchvision.transforms import v2

from encoders.stems import LogMelEncoder, PatchEncoder
from kebyt5_xm.adapters import FrameStacking, Linear
from kebyt5_xm.data import Manifest
from kebyt5_xm.data.augmentation import Crop, Gain, Noise, Perturb, Room, SpecAugment, Speed
from kebyt5_xm.data.contract import SourceContract
from kebyt5_xm.data.inputs import Example
from kebyt5_xm.data.media.interface import MediaInterface
from kebyt5_xm.data.sources.source import Selection, Source
from kebyt5_xm.data.sources.template import as_bytes
from kebyt5_xm.model.modality import interface

WORDS = "나라 말이 중국과 달라 the quick brown fox"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("augmented")
    tiny_media.write_media(folder)
    rows = [{"question": f"{n} {WORDS}", "answer": f"답 {n}"} for n in range(13)]
    tiny_media.write_manifest(folder / "texts.jsonl", rows)
    return folder


def images(folder: Path, **settings: Any) -> Manifest:
    path = str(folder / "images.jsonl")
    return Manifest(path, "{picture:image} 설명: ", "{caption}", validation=path, **settings)


def recordings(folder: Path, **settings: Any) -> Manifest:
    path = str(folder / "speech.jsonl")
    return Manifest(path, "{recording:speech}", "{transcript}", validation=path, **settings)


def texts(folder: Path, **settings: Any) -> Manifest:
    path = str(folder / "texts.jsonl")
    return Manifest(path, "질문: {question}", "{question} {answer}", validation=path, **settings)


def of_images() -> list[Any]:
    return [v2.RandomAffine(17, translate=(0.1, 0.2)), v2.Grayscale(), Crop(), Perturb("blur", 4.0)]


def of_recordings(folder: Path) -> list[Any]:
    noises = str(folder / "speech.jsonl")
    return [
        Speed((0.8, 1.0, 1.3)),
        Gain(),
        Noise(noises, "recording"),
        Room(),
        Perturb("noise", 10),
        SpecAugment(),
    ]


def of_texts() -> list[Any]:
    return [
        Perturb("typos", 0.1),
        Perturb("jamo", 0.5),
        Perturb("missing_spaces", 0.5),
        Perturb("byte_noise", 0.1),
    ]


def interfaces() -> dict[str, MediaInterface]:
    speech = LogMelEncoder(out_dim=12, sample_rate=tiny_media.SAMPLE_RATE, num_mels=17)
    return {
        "image": interface(PatchEncoder(image_size=16, out_dim=8), Linear, 29),
        "speech": interface(speech, lambda in_dim, d_model: FrameStacking(in_dim, d_model, 1), 29),
    }


MAKERS: dict[str, Callable[[Path], Manifest]] = {
    "images": lambda folder: images(folder, augment={"image": of_images()}),
    "recordings": lambda folder: recordings(folder, augment={"speech": of_recordings(folder)}),
    "texts": lambda folder: texts(folder, augment={"question": of_texts()}),
}


@pytest.mark.parametrize("kind", MAKERS)
class TestAugmented(SourceContract):
    @pytest.fixture(autouse=True)
    def _of(self, folder: Path, kind: str) -> None:
        self.folder, self.kind = folder, kind

    def make(self) -> Source:
        return MAKERS[self.kind](self.folder)

    def interfaces(self) -> dict[str, MediaInterface]:
        return interfaces()


def connected(source: Manifest) -> Manifest:
    source.connect(interfaces())
    return source


def drawn(source: Manifest, first: int = 0, seed: int = 3, held_out: bool = False) -> list[Example]:
    """Return the first eleven rows, as examples number `first` and on of a run."""
    selection = Selection.rows(0, 0, 11, held_out, seed)
    return source.load(replace(selection, index=selection.index + np.uint64(first)))


def same(first: list[Example], second: list[Example]) -> list[bool]:
    return [
        np.array_equal(a.input_ids, b.input_ids)
        and all(x.prepared.equal(y.prepared) for x, y in zip(a.media, b.media, strict=True))
        for a, b in zip(first, second, strict=True)
    ]


@pytest.mark.parametrize("kind", MAKERS)
def test_examples_follow_from_the_seed_and_their_number(folder: Path, kind: str) -> None:
    source = connected(MAKERS[kind](folder))
    examples = drawn(source)
    assert all(example.skipped is None for example in examples)
    assert all(same(examples, drawn(pickle.loads(pickle.dumps(source)))))
    assert all(same(examples, drawn(connected(MAKERS[kind](folder)))))
    another_epoch, another_seed = drawn(source, first=1_000_003), drawn(source, seed=4)
    for others in (another_epoch, another_seed):
        assert sum(same(examples, others)) < 3
        assert [e.target_ids.tolist() for e in others] == [e.target_ids.tolist() for e in examples]


@pytest.mark.parametrize("kind", MAKERS)
def test_held_out_rows_and_the_tables_of_commands_stay_as_they_are(folder: Path, kind: str) -> None:
    make: Any = {"images": images, "recordings": recordings, "texts": texts}[kind]
    plain, source = connected(make(folder)), connected(MAKERS[kind](folder))
    assert all(same(drawn(source, held_out=True), drawn(plain, held_out=True)))
    assert all(same(source.first(7, 3), plain.first(7, 3)))
    assert sum(same(drawn(source), drawn(plain))) < 3


@pytest.mark.parametrize("kind", MAKERS)
def test_global_generators_are_neither_read_nor_moved(folder: Path, kind: str) -> None:
    source = connected(MAKERS[kind](folder))
    torch.manual_seed(1)
    examples = drawn(source)
    torch.manual_seed(2)
    random.seed(5)
    np.random.seed(7)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert all(same(examples, drawn(source)))
    assert torch.get_rng_state().equal(before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]


def test_the_slots_of_a_recording_follow_its_speed(folder: Path) -> None:
    source = connected(recordings(folder, augment={"speech": [Speed((0.5, 1.0, 2.0))]}))
    plain = connected(recordings(folder)).lengths(Selection.rows(0, 0, 11, False))[10, 0]
    row = np.full(37, 10)
    selection = Selection(np.zeros_like(row), row, np.arange(37, dtype=np.uint64), 3, held_out=False)
    lengths = source.lengths(selection)
    assert [len(example.input_ids) for example in source.load(selection)] == lengths[:, 0].tolist()
    half, _, double = np.unique(lengths[:, 0]).tolist()
    assert half < plain < double
    assert half == pytest.approx(plain / 2, abs=2)
    assert double == pytest.approx(plain * 2, abs=2)


def test_a_row_that_is_impossible_at_one_speed_is_skipped_at_that_speed_alone(folder: Path) -> None:
    source = recordings(folder, augment={"speech": [Speed((0.5, 1.0, 2.0))]})
    source.connect(interfaces())
    longest = int(source.lengths(Selection.rows(0, 10, 11, True))[0, 0])
    assert source.impossible(longest)[0] > 0, "half speed makes the longest recordings longer"
    assert connected(recordings(folder)).impossible(longest)[0] == 0


def test_a_prompt_that_would_be_too_long_keeps_its_text(folder: Path) -> None:
    decomposed: dict[str, Any] = {"question": [Perturb("jamo", 1.0, probability=1.0)]}
    plain = connected(texts(folder))
    num_bytes = max(plain.lengths(Selection.rows(0, 0, 13, False))[:, 0]) - 1
    tight = connected(texts(folder, augment=decomposed, max_source_length=int(num_bytes)))
    assert all(same(drawn(tight), drawn(plain)))
    wide = connected(texts(folder, augment=decomposed))
    assert not any(same(drawn(wide), drawn(plain)))


def test_only_columns_named_are_changed(folder: Path) -> None:
    rows = [{"first": "가나다 라마바", "second": "가나다 라마바"}]
    tiny_media.write_manifest(folder / "two.jsonl", rows)
    spaceless: dict[str, Any] = {"second": [Perturb("missing_spaces", 1.0, probability=1.0)]}
    source = connected(
        Manifest(str(folder / "two.jsonl"), "a b: {first} {second}", "{second}", augment=spaceless)
    )
    changes = source.changes(3, 0)
    assert changes is not None
    (text,) = source.training.segments(0, changes.text)
    assert as_bytes(text).decode() == "a b: 가나다 라마바 가나다라마바"  # pyright: ignore[reportArgumentType]
    assert source.training.target_text(0) == "가나다 라마바"


def test_settings_name_every_argument(folder: Path) -> None:
    found = [
        connected(images(folder, augment={"image": [step]})).settings()["augment"]
        for step in (
            v2.RandomAffine(10),
            v2.RandomAffine(11),
            v2.RandomApply([v2.ColorJitter(0.1)], p=0.5),
            v2.RandomApply([v2.ColorJitter(0.2)], p=0.5),
            v2.RandomApply([v2.ColorJitter(0.2)], p=0.6),
            Crop(scale=(0.5, 1.0)),
            Crop(),
        )
    ]
    assert len(set(map(str, found))) == len(found)
    source, plain = connected(MAKERS["recordings"](folder)), connected(recordings(folder))
    settings = source.settings()
    assert settings == connected(MAKERS["recordings"](folder)).settings()
    assert str(folder) not in str(settings), "a run may continue in another folder"
    assert "augment" not in plain.settings(), "runs from before this option continue"
