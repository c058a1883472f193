"""The benchmark of decoding at a toy size: all peers write the same ids, and every figure is there."""

import pytest

from benchmarks import decoding

SHAPE = {"d_model": 64, "d_ff": 32, "num_heads": 2, "num_layers": 2, "num_decoder_layers": 1, "d_kv": 32}


@pytest.mark.slow
def test_every_peer_writes_the_same_ids(tmp_path) -> None:
    pytest.importorskip("ctranslate2")
    figures = decoding.measure(decoding.Case(SHAPE, 7, {}), tmp_path, turns=1)
    assert figures["equal_ids_transformers_to_fp32"] == figures["equal_ids_ctranslate2_fp32_to_fp32"] == 1
    peers = (*decoding.OURS, "transformers", *decoding.CTRANSLATE2)
    assert all(figures[f"{peer}_ms_per_byte"] > 0 for peer in peers)
    assert figures["reading_ms"] > 0


def test_ratios_say_how_many_times_as_fast_ours_is() -> None:
    ms = {"fp32": 2.0, "int8": 1.0, "transformers": 8.0, "ctranslate2_fp32": 3.0, "ctranslate2_int8": 0.5}
    assert decoding.ratios(ms) == {
        "ratio_fp32_to_transformers": 4.0,
        "ratio_int8_to_transformers": 8.0,
        "ratio_fp32_to_ctranslate2": 1.5,
        "ratio_int8_to_ctranslate2": 0.5,
    }
