"""The GPU benchmark at toy sizes on a CPU: it runs, compares equal work, and goes on after a failure."""

import json
import time
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, gpu_training
from benchmarks.device import Device
from benchmarks.gpu_training import Examples, make_examples, our_loss, random_backbone, their_loss
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
    others = ["--only", "decode", "--only", "attention", "--only", "tests"]
    assert gpu.main(["--toy", "--out", str(tmp_path), *others]) == 0
    figures = read(tmp_path)
    assert figures["matrix"]["matrix_tflop_per_s"] > 0
    assert set(figures) == {"matrix", "tests", "attention", "train", "decode"}
    assert set(figures["train"]["small"]) == {"sdpa", "eager"}
    sdpa = figures["train"]["small"]["sdpa"]
    assert {"full_ours", "full_transformers", "mixed_ours", "mixed_transformers"} <= set(sdpa)
    for kind in ("full", "mixed"):  # the same texts; only the padding differs
        ours, theirs = sdpa[f"{kind}_ours"], sdpa[f"{kind}_transformers"]
        for key in ("examples_per_s", "useful_bytes_per_s"):
            assert ours[key] * ours["seconds"] == pytest.approx(theirs[key] * theirs["seconds"])
    attention = figures["attention"]["base"]
    for kind in ("full", "packed"):
        assert {"sdpa", "reference"} <= set(attention[kind])
        assert attention[kind]["sdpa"]["ratio_to_sdpa"] == 1.0
    # packed rows of 31 hold texts of 12, 10, 6 and 3 bytes
    rates = [attention[kind]["sdpa"] for kind in ("full", "packed")]
    flops = [figures["tflop_per_s"] * figures["forward_and_backward_ms"] for figures in rates]
    assert flops[1] / flops[0] == pytest.approx((12**2 + 10**2 + 6**2 + 3**2) / 31**2)
    assert figures["decode"]["base"]["batch_16"]["equal_ids"] == 1.0
    assert figures["tests"]["failed"] == 0
    assert figures["tests"]["torch"] == torch.__version__
    printed = capsys.readouterr().out
    assert "FAILED" not in printed
    assert "no time" not in printed


def test_both_sides_train_on_the_same_texts_and_losses(device: Device):
    t5 = random_backbone("small", "sdpa", device).build()
    model = CrossModalT5(CrossModalT5Config(t5.config.to_dict()), t5, {})
    for examples in make_examples(device).values():
        ours, theirs = examples.our_batches(), examples.their_batches()
        assert sorted(row for rows in ours for row in rows) == sorted(row for rows in theirs for row in rows)
        with torch.no_grad():
            our_sum = sum(float(our_loss(model, examples.batch(rows))) for rows in ours)
            their_sum = sum(float(their_loss(t5, examples.batch(rows))) for rows in theirs)
        assert our_sum == pytest.approx(their_sum, rel=1e-5)


def test_full_rows_need_no_mask_and_mixed_ones_are_padded(device: Device):
    def batches(examples: Examples) -> list:
        return [examples.batch(rows) for rows in examples.our_batches()]

    full, mixed = (batches(examples) for examples in make_examples(device).values())
    assert all(batch.inputs.attention_mask() is None for batch in full)
    assert any(batch.inputs.attention_mask() is not None for batch in mixed)
    assert len(full) == len(mixed) == gpu_training.MICRO_BATCHES


def test_a_failure_is_a_line_and_the_next_part_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture, device: Device
):
    def fails() -> dict[str, float]:
        raise RuntimeError("no kernel\nof this kind")

    session = gpu.Session(device, tmp_path / "gpu.json", time.monotonic() + 97)
    session.measure("train", [(("small",), lambda: {"one": fails, "two": lambda: {"seconds": 1.5}})])
    session.measure("decode", [(("small",), fails)])
    assert session.failed == ["train.small.one", "decode.small"]
    assert capsys.readouterr().out.splitlines() == [
        "train.small.one: FAILED: RuntimeError: no kernel",
        "train.small two: seconds 1.5",
        "decode.small: FAILED: RuntimeError: no kernel",
    ]
    assert read(tmp_path)["train"]["small"]["two"] == {"seconds": 1.5}


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
        gpu.gpu_tests(0.2)
