"""CTC heads in training: on one rank and two, killed and continued; rows that are too short; exports; refusals."""

import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tiny_media
import tiny_run
from tiny_run import STRATEGIES, fit, log_of, losses, tensors, train_losses

from encoders.stems import LogMelEncoder
from kebyt5_xm.adapters import Linear
from kebyt5_xm.commands.export.export import export_run
from kebyt5_xm.data import DataModule, Manifest
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.ctc import CTC
from kebyt5_xm.model.modality import interface
from kebyt5_xm.model.runs.run import Run
from kebyt5_xm.training.callbacks.too_short import FILE
from kebyt5_xm.training.ctc_check import check_transcripts, transcript_parts
from kebyt5_xm.training.recipes import overlay

SHORT = {1, 2, 3, 4}
"""Lines of speech.jsonl whose transcripts have more bytes than their recordings have slots."""


def recipe(folder: Path, run: str, **trainer: Any) -> dict[str, Any]:
    """Return the tiny recipe of text, images and speech, with a head of one frame per slot."""
    contents = tiny_run.recipe(folder, run, **trainer)
    for added in (tiny_media.image_overlay(folder), tiny_media.speech_overlay(folder)):
        contents = overlay(contents, added)
    contents["model"]["modalities"]["speech"]["ctc"] = {"weight": 0.3, "frames_per_slot": 1, "until": 11}
    return contents


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ctc")
    tiny_run.write_stores(folder)
    tiny_media.write_media(folder)
    return folder


@pytest.fixture(scope="module")
def single(folder: Path) -> Run:
    """The run of a single process."""
    assert fit(folder, "single", recipe(folder, "single")) == [0], log_of(folder, "single")
    return Run(folder / "single")


def data(folder: Path, *names: str) -> DataModule:
    """Return connected sources of speech of the given names."""
    (speech,) = tiny_media.speech_overlay(folder)["data"]["sources"].values()
    found: dict[str, Any] = {name: Manifest(**speech["init_args"]) for name in names}
    module = DataModule(found, num_workers=0)
    encoder = LogMelEncoder(out_dim=12, sample_rate=tiny_media.SAMPLE_RATE, num_mels=17)
    module.connect(
        {"speech": interface(encoder, lambda width, d_model: Linear(width, d_model, begin_end=True), 13)}
    )
    return module


@pytest.mark.slow
def test_the_loss_and_the_rows_that_are_too_short_are_reported(single: Run) -> None:
    found = [value for (_, name), value in train_losses(single.path).items() if name == "train/loss/ctc"]
    assert found
    shares = [row["value"] for row in single.metrics() if row["metric"] == "ctc/too_short/speech"]
    assert any(0 < share < 1 for share in shares)
    rows = [json.loads(line) for line in (single.path / FILE).read_text().splitlines()]
    assert rows
    assert {row["line"] for row in rows} <= SHORT
    assert max(Counter(row["line"] for row in rows).values()) == 1
    assert {row["source"] for row in rows} == {"speech"}
    first = next(row for row in rows if row["line"] == min(row["line"] for row in rows))
    assert first["cause"].endswith("transcript needs 8")
    log = log_of(single.path.parent, "single")
    assert log.count("such rows train without CTC") == 1
    assert f"line {rows[0]['line']} of" in log


@pytest.mark.slow
@pytest.mark.parametrize("name", STRATEGIES)
def test_two_ranks_equal_one(folder: Path, single: Run, name: str) -> None:
    contents = recipe(folder, name, strategy=STRATEGIES[name], devices=2)
    assert fit(folder, name, contents, ranks=2) == [0, 0], log_of(folder, name)
    other = Run(folder / name)
    assert losses(other) == pytest.approx(losses(single), rel=1e-5)
    expected, found = tensors(single.last), tensors(other.last)
    assert found.keys() == expected.keys()
    for key, tensor in found.items():
        assert tensor.detach().numpy() == pytest.approx(expected[key].numpy(), rel=1e-3, abs=1e-4), key


@pytest.mark.slow
def test_killed_and_continued_is_bit_identical(folder: Path, single: Run) -> None:
    kill = {"class_path": "killing.KillAfter", "init_args": {"micro_batch": 17}}
    assert fit(folder, "killed", recipe(folder, "killed", callbacks=[kill])) == [-signal.SIGKILL]
    codes = fit(folder, "killed", recipe(folder, "killed"), "--ckpt_path", "last")
    assert codes == [0], log_of(folder, "killed")
    assert train_losses(folder / "killed") == train_losses(single.path)
    expected, found = tensors(single.last), tensors(Run(folder / "killed").last)
    assert all(found[key].equal(tensor) for key, tensor in expected.items())


@pytest.mark.slow
def test_the_run_and_its_export_answer_without_the_head(folder: Path, single: Run) -> None:
    stored = tensors(single.last)
    assert {key for key in stored if "ctc" in key} == {
        "model.ctc_heads.speech.weight",
        "model.ctc_heads.speech.bias",
    }
    export_run(single, folder / "export")
    models = [CrossModalT5.from_pretrained(path) for path in (single.path, folder / "export")]
    assert not any("ctc" in name for model in models for name in model.state_dict())
    answers = [model.answer([("speech", folder / "3.wav")], max_new_tokens=11) for model in models]
    assert answers[0] == answers[1]


def test_sources_are_found_or_must_be_named(folder: Path) -> None:
    one, two = data(folder, "speech"), data(folder, "questions", "speech")
    assert transcript_parts({"speech": CTC()}, one) == {"speech": {0}}
    assert transcript_parts({"speech": CTC(sources=["speech"])}, two) == {"speech": {1}}
    with pytest.raises(
        UserError, match=r"ctc\.sources is not given, but several .* 'speech': questions, speech"
    ):
        transcript_parts({"speech": CTC()}, two)
    with pytest.raises(
        UserError, match=r"names 'speach', expected sources that feed 'speech'.*did you mean 'speech'"
    ):
        transcript_parts({"speech": CTC(sources=["speach"])}, one)


def test_sources_that_ctc_cannot_learn_are_refused(tmp_path: Path) -> None:
    tiny_media.write_media(tmp_path)
    check_transcripts({"speech": CTC(frames_per_slot=1)}, data(tmp_path, "speech"))
    rows = [{"recording": "0.wav", "transcript": "too many bytes"}] * 3
    tiny_media.write_manifest(tmp_path / "speech.jsonl", rows)
    short = data(tmp_path, "speech")
    with pytest.raises(UserError, match=r"3 of 3 recordings .* set frames_per_slot to 3 \(it is 1\)"):
        check_transcripts({"speech": CTC(frames_per_slot=1)}, short)
    check_transcripts({"speech": CTC(frames_per_slot=3)}, short)
    tiny_media.write_manifest(
        tmp_path / "speech.jsonl", [{"recording": ["0.wav", "1.wav"], "transcript": "a"}]
    )
    with pytest.raises(UserError, match=r"none of the first 1 rows of 'speech' has exactly one 'speech'"):
        check_transcripts({"speech": CTC()}, data(tmp_path, "speech"))
