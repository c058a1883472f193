"""The contract of sources: ours keep it, every broken promise is found, and a third-party source works everywhere."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_media
import tiny_run
from tiny_sources import Sums

from encoders.stems import LogMelEncoder, PatchEncoder
from kebyt5_xm.adapters import Linear
from kebyt5_xm.commands import cli
from kebyt5_xm.data import Denoising, Manifest
from kebyt5_xm.data.contract import SourceContract
from kebyt5_xm.data.inputs import Example
from kebyt5_xm.data.media.interface import MediaInterface
from kebyt5_xm.data.sources.source import Source
from kebyt5_xm.metrics import Accuracy, CharacterErrorRate
from kebyt5_xm.model.modality import interface


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    tiny_run.write_stores(folder)
    tiny_media.write_media(folder)
    rows = [{"question": f"is {n} even?", "answer": "no" if n % 2 else "yes"} for n in range(13)]
    tiny_media.write_manifest(folder / "labels.jsonl", [*rows, {"question": None, "answer": "no"}])
    return folder


class InFolder(SourceContract):
    @pytest.fixture(autouse=True)
    def _folder(self, folder: Path) -> None:
        self.folder = folder


@pytest.mark.parametrize("boundaries", ["byte", "character"])
class TestDenoising(InFolder):
    @pytest.fixture(autouse=True)
    def _boundaries(self, boundaries: Any) -> None:
        self.boundaries = boundaries

    def make(self) -> Source:
        stores = {language: str(self.folder / language) for language in tiny_run.WORDS}
        return Denoising(stores, inputs_length=61, validation=0.05, boundaries=self.boundaries)


class TestImages(InFolder):
    def make(self) -> Source:
        path = str(self.folder / "images.jsonl")
        return Manifest(
            path, "{picture:image} 설명: ", "{caption}", validation=path, metrics=[CharacterErrorRate()]
        )

    def interfaces(self) -> dict[str, MediaInterface]:
        return {"image": interface(PatchEncoder(image_size=16, out_dim=8), Linear, 29)}


class TestRecordings(InFolder):
    def make(self) -> Source:
        return Manifest(str(self.folder / "speech.jsonl"), "{recording:speech}", "{transcript}")

    def interfaces(self) -> dict[str, MediaInterface]:
        encoder = LogMelEncoder(out_dim=13, sample_rate=tiny_media.SAMPLE_RATE, num_mels=11)
        return {"speech": interface(encoder, Linear, 29)}


class TestLabels(InFolder):
    def make(self) -> Source:
        path = str(self.folder / "labels.jsonl")
        return Manifest(
            path, "{question}", "{answer}", labels=["yes", "no"], validation=path, metrics=[Accuracy()]
        )


class TestThirdParty(SourceContract):
    def make(self) -> Source:
        return Sums()


# -- every promise, broken by hand ------------------------------------------------------------------


class Uneven(Sums):
    def parts(self):
        return [replace(part, share=0.5) for part in super().parts()]


class Unplain(Sums):
    def settings(self):
        return {"limit": {self.limit}}


class Endless(Sums):
    def load(self, selection):
        return [Example(e.input_ids[:-1], e.target_ids) for e in super().load(selection)]


class Miscounted(Sums):
    def lengths(self, selection):
        return super().lengths(selection) + 1


class Sociable(Sums):
    def load(self, selection):
        examples = super().load(selection)
        return [*examples[1:], examples[0]]


class Padded(Sums):
    def load(self, selection):
        padding = np.zeros(1, dtype=np.int16)
        return [
            replace(example, input_ids=np.concatenate([padding, example.input_ids]))
            for example in super().load(selection)
        ]


class Counting(Sums):
    drawn = 0

    def __getstate__(self):
        return {**self.__dict__, "limit": 11}


class Nowhere(Sums):
    def place(self, part, row, held_out=False):
        return "sums", row


class Speechless(Sums):
    def references(self, part, row):
        return ()


class Mislabelled(Sums):
    labels = ("many", "few")


class Unread(Sums):
    def inspections(self):
        return [replace(i, read=lambda start, stop, progress: None) for i in super().inspections()]


@pytest.mark.parametrize(
    ("broken", "promise", "message"),
    [
        (Uneven, "training_parts_have_rows_and_shares_that_sum_to_one", "shares must sum to 1"),
        (Unplain, "settings_are_plain_values", "not JSON serializable"),
        (Endless, "examples_are_byte_ids_that_end", "end of sequence"),
        (Miscounted, "lengths_are_those_of_the_examples", "a length is wrong"),
        (Sociable, "an_example_depends_on_its_row_alone", "order or company"),
        (Padded, "slots_do_not_overlap_and_belong_to_the_modalities_named", "padding stands at slots"),
        (Counting, "a_pickled_source_gives_the_same_examples", "another example"),
        (Nowhere, "every_row_has_a_place", "count from 1"),
        (Speechless, "answers_can_be_judged", "no held-out row has references"),
        (Mislabelled, "answers_can_be_judged", "is no label"),
        (Unread, "lint_reads_every_row", "count every row"),
    ],
)
def test_a_broken_promise_is_found(broken: type[Source], promise: str, message: str) -> None:
    class Contract(SourceContract):
        def make(self) -> Source:
            return broken()

    contract = Contract()
    test = getattr(contract, f"test_{promise}")
    with pytest.raises((AssertionError, TypeError), match=message):
        test(contract._connected())


# -- a third-party source in every command ----------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Lightning's calls of jsonargparse
def test_a_third_party_source_works_in_every_command(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tiny_run.recipe(folder, "unused")
    recipe["run_dir"] = str(tmp_path / "run")
    recipe["data"]["sources"]["sums"] = {"class_path": "tiny_sources.Sums", "init_args": {"weight": 1.0}}
    assert tiny_run.fit(tmp_path, "sums", recipe) == [0], tiny_run.log_of(tmp_path, "sums")
    path, run = str(tmp_path / "sums.yaml"), str(tmp_path / "run")

    cli.run("lint", ["-c", path])
    assert "sums: Sums: 93 rows, nothing wrong" in capsys.readouterr().out
    cli.run("doctor", ["-c", path])
    assert "sums: lengths" in capsys.readouterr().out
    cli.run("preview", ["-c", path, "--source", "sums", "--out", str(tmp_path / "preview.html")])
    assert "Sums:" in (tmp_path / "preview.html").read_text(encoding="utf-8")
    cli.run("report", [run, "--trust", "tiny_sources"])
    evaluation = json.loads((tmp_path / "run" / "evaluation.json").read_text(encoding="utf-8"))
    assert evaluation["sources"]["sums"]["examples"] == 7
    predictions = (tmp_path / "run" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(predictions[0])["prompt"] == ["9+3="]
    cli.run("export", [run, "--out", str(tmp_path / "export"), "--trust", "tiny_sources"])
    exported = json.loads((tmp_path / "export" / "config.json").read_text(encoding="utf-8"))
    assert exported["kebyt5_xm"]["denoising"]["inputs_length"] == 61


def test_a_held_out_chunk_is_placed_behind_the_training_chunks(folder: Path) -> None:
    source = Denoising({"en": str(folder / "en")}, inputs_length=61, validation=0.05)
    assert source.place(0, 0, held_out=True) == (str(folder / "en"), source.parts()[0].num_rows + 1)
