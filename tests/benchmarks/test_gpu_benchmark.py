"""The GPU benchmark at toy sizes on a CPU: it runs, compares equal work, and goes on after a failure."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import torch

from benchmarks import gpu, gpu_session, gpu_tests, gpu_training
from benchmarks.device import Device
from benchmarks.gpu_packing import make_batches
from benchmarks.gpu_training import Examples, make_examples, our_loss, random_backbone, their_loss
from benchmarks.peers import plain_copy
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.configuration import CrossModalT5Config
from kebyt5_xm.model.cross_modal import CrossModalT5


@pytest.fixture
def device() -> Device:
    return Device(toy=True)


def read(folder: Path) -> dict:
    return json.loads((folder / "gpu.json").read_text())["toy sizes on a CPU"]


@pytest.mark.slow
def test_every_part_runs_and_figures_are_merged(tmp_path: Path, capsys: pytest.CaptureFixture):
    train = ["--toy", "--out", str(tmp_path), "--only", "train", "--sizes", "small"]
    assert gpu.main(train) == 0
    others = [argument for part in gpu.PARTS if part != "train" for argument in ("--only", part)]
    assert gpu.main(["--toy", "--out", str(tmp_path), *others, "--sizes", "base"]) == 0
    figures = read(tmp_path)
    assert figures["matrix"]["matrix_tflop_per_s"] > 0
    assert set(figures) == {"matrix", *gpu.PARTS}
    trained = figures["train"]["small"]
    assert set(trained["transformers"]) == {"eager", "sdpa"}
    assert {"eager", "sdpa"} <= set(trained["ours"]) <= set(gpu_training.variants(toy=True))
    for kind in ("full", "mixed"):  # the same texts; only the padding differs
        ours, theirs = trained["ours"]["sdpa"][kind], trained["transformers"]["eager"][kind]
        for key in ("examples_per_s", "useful_bytes_per_s"):
            assert ours[key] * ours["seconds"] == pytest.approx(theirs[key] * theirs["seconds"])
        assert ours["ratio_to_transformers_eager"] == pytest.approx(theirs["seconds"] / ours["seconds"])
    assert figures["decode"]["base"]["batch_16"]["equal_ids"] == 1.0
    packing = figures["packing"]["base"]["sdpa"]
    assert packing["packed"]["padding_share"] < packing["by_length"]["padding_share"]
    assert set(figures["encoders"]) == {"image", "speech"}
    assert figures["tests"]["failed"] == 0
    assert figures["tests"]["torch"] == torch.__version__
    printed = capsys.readouterr().out
    assert "FAILED" not in printed
    assert "no time" not in printed
    table = printed.rpartition("toy sizes on a CPU\n")[2]
    rows = {line.split()[0] for line in table.splitlines()[1:]}
    assert {"matrix", "tests", "train.small.ours.sdpa.full", "decode.base.batch_1"} <= rows


def test_both_sides_train_on_the_same_texts_and_losses(device: Device):
    backbone = random_backbone("small", device).build()
    t5 = plain_copy(backbone)
    model = CrossModalT5(CrossModalT5Config(backbone.config.to_dict()), backbone, {})
    for examples in make_examples(device).values():
        ours, theirs = examples.our_batches(), examples.their_batches()
        assert sorted(row for rows in ours for row in rows) == sorted(row for rows in theirs for row in rows)
        with torch.no_grad():
            our_sum = sum(float(our_loss(model, examples.batch(rows))) for rows in ours)
            their_sum = sum(float(their_loss(t5, examples.batch(rows))) for rows in theirs)
        assert our_sum == pytest.approx(their_sum, rel=1e-5)


def test_the_choices_of_the_backbone_are_followed(monkeypatch: pytest.MonkeyPatch):
    @dataclass
    class Backbone:
        attention: Literal["sdpa", "triton"] | None = "triton"
        compile: bool | Literal["auto"] = False

    monkeypatch.setattr(gpu_training, "Backbone", Backbone)
    assert list(gpu_training.variants(toy=False)) == [
        "triton",
        "sdpa",
        *("triton_compile_true", "sdpa_compile_true", "triton_compile_auto", "sdpa_compile_auto"),
    ]


def test_full_rows_need_no_mask_and_mixed_ones_are_padded(device: Device):
    def batches(examples: Examples) -> list:
        return [examples.batch(rows) for rows in examples.our_batches()]

    full, mixed = (batches(examples) for examples in make_examples(device).values())
    assert all(batch.inputs.attention_mask() is None for batch in full)
    assert any(batch.inputs.attention_mask() is not None for batch in mixed)
    assert len(full) == len(mixed) == gpu_training.MICRO_BATCHES


def test_packed_rows_and_batches_by_length_hold_texts_of_one_distribution(device: Device):
    by_length, packed = (make_batches(device, packed) for packed in (False, True))
    assert all(batch.inputs.packing is None for batch in by_length)
    assert all(batch.inputs.packing is not None for batch in packed)
    assert sum(batch.num_ids for batch in packed) > sum(batch.num_ids for batch in by_length)


def test_a_failure_is_a_line_and_the_next_part_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture, device: Device
):
    def fails() -> dict[str, float]:
        raise RuntimeError("no kernel\nof this kind")

    def is_refused() -> dict[str, float]:
        raise UserError("found no GPU, expected one for triton; set attention: sdpa")

    session = gpu_session.Session(device, tmp_path / "gpu.json", time.monotonic() + 97)
    measurements = {"one": fails, "two": is_refused, "three": lambda: {"seconds": 1.5}}
    session.measure("train", [(("small",), lambda: measurements)])
    session.measure("decode", [(("small",), fails)])
    assert session.failed == ["train.small.one", "decode.small"]
    assert capsys.readouterr().out.splitlines() == [
        "train.small.one: FAILED: RuntimeError: no kernel",
        "train.small.two: not run: found no GPU, expected one for triton; set attention: sdpa",
        "train.small three: seconds 1.5",
        "decode.small: FAILED: RuntimeError: no kernel",
    ]
    assert read(tmp_path)["train"]["small"]["three"] == {"seconds": 1.5}


def test_a_measurement_without_an_end_is_interrupted_and_the_next_part_runs(
    tmp_path: Path, device: Device, monkeypatch: pytest.MonkeyPatch
):
    def compiles() -> dict[str, float]:
        while True:
            pass

    monkeypatch.setattr(gpu_session, "MIN_SECONDS", 0.0)
    monkeypatch.setattr(gpu_session, "GRACE_SECONDS", 0.0)
    session = gpu_session.Session(device, tmp_path / "gpu.json", time.monotonic() + 97)
    session.measure("train", [(("small",), lambda: {"one": compiles, "two": lambda: {"ms": 1.0}})], 0.05)
    session.measure("decode", [(("small",), lambda: {"three": lambda: {"ms": 1.0}})])
    assert session.failed == ["train.small.one"]
    assert session.skipped == ["train.small.two"]
    assert set(read(tmp_path)) == {"decode"}


def test_parts_take_turns_by_value_and_one_alone_has_all_the_time():
    order = [(part, sizes) for part, sizes, _ in gpu.turns(None, ["small", "base"])]
    assert order[0] == ("tests", ["small", "base"])
    assert order.index(("train", ["small"])) < order.index(("train", ["base"]))
    assert {part for part, _ in order} == set(gpu.PARTS)
    assert list(gpu.turns(["train"], ["small"])) == [("train", ["small"], float("inf"))]


def test_parts_without_time_are_named_and_earlier_figures_stay(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "gpu.json").write_text(json.dumps({"toy sizes on a CPU": {"decode": {"small": {"ms": 3}}}}))
    assert gpu.main(["--toy", "--out", str(tmp_path), "--seconds", "1", "--only", "decode"]) == 0
    assert "no time was left for: matrix, decode" in capsys.readouterr().out
    assert read(tmp_path) == {"decode": {"small": {"ms": 3}}}


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_without_a_gpu_it_prints_one_line(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert gpu.main(["--out", str(tmp_path)]) == 2
    assert "--toy" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_gpu_tests_that_take_too_long_are_ended():
    with pytest.raises(RuntimeError, match="not done after 0 s"):
        gpu_tests.run_tests(0.2)
