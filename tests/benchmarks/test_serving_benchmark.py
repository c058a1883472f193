"""The benchmark of the server for a second: nothing fails, and README's row has all its figures."""

import json

import pytest

from benchmarks import readme, report, serving

pytest.importorskip("fastapi")
SHAPE = {"d_model": 64, "d_ff": 32, "num_heads": 2, "num_layers": 2, "num_decoder_layers": 1, "d_kv": 32}


@pytest.mark.slow
def test_every_figure_is_there(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    monkeypatch.setattr(readme, "RESULTS", tmp_path)
    monkeypatch.setattr(serving, "TINY", SHAPE)
    serving.main(["--seconds", "1", "--clients", "3"])
    figures = json.loads((tmp_path / "serving.json").read_text())["figures"]
    for name in ("batches_of_16", "one_by_one"):
        found = figures[name]
        assert found["failed"] == 0
        assert found["answered"] >= 3
        assert 0 < found["p50_ms"] <= found["p99_ms"]
    (row,) = (row for row in readme.ROWS if row.benchmark == "serving")
    assert "3 clients for 1 s" in row.text("en")
    assert "클라이언트 3개" in row.text("ko")


def test_broken_connections_and_refusals_count_as_failed() -> None:
    times: list[float] = []
    failed: list[int] = []
    serving.ask("127.0.0.1:1", 0.0, times, failed)
    assert (times, failed) == ([], [0])
