"""The decoder's products of one row, which are split among threads, equal those of whole matrices."""

import pytest
import torch

from kebyt5_xm.model.decoding import weights
from kebyt5_xm.model.decoding.weights import DenseMatrix


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("sizes", [(12,), (12, 6), (7,)], ids=str)
@pytest.mark.parametrize("max_fused", [0, 1 << 20])
def test_products_in_parts_equal_whole_ones(
    rows: int, sizes: tuple[int, ...], max_fused: int, monkeypatch
) -> None:
    monkeypatch.setattr(weights, "MIN_SPLIT", 1)
    monkeypatch.setattr(weights, "MAX_FUSED", max_fused)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    split = []
    monkeypatch.setattr(torch, "bmm", lambda *a, run=torch.bmm, **k: split.append(1) or run(*a, **k))
    torch.manual_seed(0)
    parts = [torch.randn(size, 5) for size in sizes]
    x, total = torch.randn(rows, 5), torch.randn(rows, sum(sizes))
    expected = x @ torch.cat(parts).t()
    matrix = DenseMatrix(parts)
    out = torch.empty_like(total)
    matrix.multiply(x, out)
    torch.testing.assert_close(out, expected)
    assert bool(split) == (rows == 1 and sizes != (7,))  # 7 rows are no three equal parts
    if len(sizes) == 1:
        added = total + expected
        matrix.add_product(x, total)
        torch.testing.assert_close(total, added)


def test_small_and_half_precision_matrices_stay_whole(monkeypatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    for matrix in (torch.ones(4, 4), torch.ones(1024, 1024, dtype=torch.bfloat16)):
        assert weights._split(matrix) is None
    assert weights._split(torch.ones(1024, 1024)) is not None
