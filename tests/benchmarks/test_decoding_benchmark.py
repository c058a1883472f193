"""The benchmark of decoding at a toy size: all peers write the same ids, and every figure is there."""

import json

import pytest

from benchmarks import decoding, report

SHAPE = {"d_model": 64, "d_ff": 32, "num_heads": 2, "num_layers": 2, "num_decoder_layers": 1, "d_kv": 32}


@pytest.mark.slow
def test_every_peer_writes_the_same_ids(tmp_path, monkeypatch, capsys) -> None:
    pytest.importorskip("ctranslate2")
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    monkeypatch.setattr(
        decoding, "measure_seconds", lambda calls, turns: dict.fromkeys(calls, 0.0) | one(calls)
    )
    decoding.main({"toy": decoding.Case(SHAPE, 7, {"ratio_fp32_to_transformers": 0.5})})
    figures = json.loads((tmp_path / "decoding.json").read_text())["figures"]["toy"]
    assert figures["equal_ids_transformers_to_fp32"] == figures["equal_ids_ctranslate2_fp32_to_fp32"] == 1
    assert {f"{name}_ms_per_byte" for name in one({})} <= figures.keys()
    assert figures["ratio_fp32_to_best_peer"] == 1
    assert "toy.ratio_fp32_to_transformers" in capsys.readouterr().out


def one(calls: dict) -> dict[str, float]:
    """Return a second for every whole answer."""
    return dict.fromkeys(("fp32", "int8", "transformers", "ctranslate2_fp32", "ctranslate2_int8"), 1.0)
