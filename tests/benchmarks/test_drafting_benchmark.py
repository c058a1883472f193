"""The benchmark of drafting at a toy size: drafts write what greedy writes, and every figure is there."""

import json

import pytest

from benchmarks import decoding, drafting, report
from kebyt5_xm.data.text.store_writer import StoreWriter

SHAPE = {"d_model": 64, "d_ff": 32, "num_heads": 2, "num_layers": 2, "num_decoder_layers": 1, "d_kv": 32}


@pytest.mark.slow
def test_every_figure_is_there(tmp_path, monkeypatch) -> None:
    for package in ("konlpy", "sklearn"):
        pytest.importorskip(package)
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    monkeypatch.setattr(drafting, "TINY", SHAPE)
    monkeypatch.setattr(drafting, "DEMO", tmp_path)
    monkeypatch.setattr(drafting, "DEMO_CHUNKS", 1)
    decoding.random_model(SHAPE, tmp_path / "export" / "text")
    with StoreWriter(tmp_path / "data" / "ko.heldout", "ko") as store:
        store.write("가나다라마바사 ".encode() * 40)
    monkeypatch.setattr(drafting, "CASES", {"toy": decoding.Case(SHAPE, 7, {})})

    def once(calls: dict, turns: int) -> dict[str, float]:
        return {name: float(call() is not None) for name, call in calls.items()}

    monkeypatch.setattr(drafting, "measure_seconds", once)
    drafting.main(["toy"], training_seconds=0)
    figures = json.loads((tmp_path / "drafting.json").read_text())["figures"]
    for dtype in ("fp32", "int8"):
        found = figures["copying"][f"toy_{dtype}"]
        assert found["corrected_passes_per_byte"] < 0.5 < found["unrelated_passes_per_byte"] <= 1
        assert figures["pass"][f"toy_{dtype}"].keys() == {f"{n}_ids_to_1" for n in (2, 5, 8, 16)}
    assert 0 < figures["heads"]["both_passes_per_byte"] <= 1
    assert 0 < figures["demo"]["passes_per_byte"] <= 1
