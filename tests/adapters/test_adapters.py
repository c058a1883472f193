"""Adapters: exact counts, invariance to padding, and the initial scale."""

import math
from collections.abc import Callable

import jsonargparse
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kebyt5_xm.adapters import (
    MLP,
    Adapter,
    FrameStacking,
    Linear,
    PerceiverResampler,
    PixelShuffle,
    StridedConvolution,
    scale_ratio,
)
from kebyt5_xm.errors import UserError

IN_DIM, D_MODEL = 7, 13

SEQUENCE: dict[str, Callable[..., Adapter]] = {
    "linear": lambda **options: Linear(IN_DIM, D_MODEL, **options),
    "mlp": lambda **options: MLP(IN_DIM, D_MODEL, hidden=11, **options),
    "stacking": lambda **options: FrameStacking(IN_DIM, D_MODEL, stack=3, hidden=11, **options),
    "convolution": lambda **options: StridedConvolution(IN_DIM, D_MODEL, hidden=11, **options),
    "even convolution": lambda **options: StridedConvolution(
        IN_DIM, D_MODEL, stride=3, kernel=8, layers=1, **options
    ),
    "convolution without overlap": lambda **options: StridedConvolution(
        IN_DIM, D_MODEL, stride=5, kernel=5, layers=3, hidden=11, **options
    ),
    "perceiver": lambda **options: PerceiverResampler(
        IN_DIM, D_MODEL, queries=5, layers=2, heads=2, width=8, **options
    ),
}
GRID = SEQUENCE | {
    "shuffle": lambda **options: PixelShuffle(IN_DIM, D_MODEL, **options),
    "shuffle by 3": lambda **options: PixelShuffle(IN_DIM, D_MODEL, factor=3, hidden=11, **options),
}


def build(name: str, **options: bool) -> Adapter:
    torch.manual_seed(3)
    return GRID[name](**options).eval()


def check_items(
    adapter: Adapter, items: list[torch.Tensor], sizes: list[tuple[int, ...]], padded, mask, grid=None
) -> None:
    """Check that each item of the padded batch has its slots first, as many as promised, and equal to those alone."""
    vectors, valid = adapter(padded, mask, grid)
    assert vectors.shape == (*valid.shape, D_MODEL)
    for item, size, row, row_valid in zip(items, sizes, vectors, valid, strict=True):
        count = adapter.num_slots(size)
        assert row_valid.tolist() == [True] * count + [False] * (len(row_valid) - count)
        assert not row[count:].any()
        alone, alone_valid = adapter(
            item[None], torch.ones(1, len(item), dtype=torch.bool), size if grid else None
        )
        assert alone_valid.sum() == count
        torch.testing.assert_close(row[:count], alone[0, :count], rtol=1e-4, atol=1e-5)


@settings(max_examples=60)
@given(
    name=st.sampled_from(sorted(SEQUENCE)),
    lengths=st.lists(st.integers(0, 31), min_size=1, max_size=4),
    extra=st.integers(0, 3),
    begin_end=st.booleans(),
    seed=st.integers(0, 99),
)
@torch.no_grad()
def test_padding_and_company_change_nothing(name, lengths, extra, begin_end, seed):
    adapter = build(name, begin_end=begin_end, modality_vector=True)
    generator = torch.Generator().manual_seed(seed)
    items = [torch.randn(length, IN_DIM, generator=generator) for length in lengths]
    # Padding values, even NaN, and holes in the mask must not matter.
    padded = torch.full((len(items), max(lengths) + extra + 1, IN_DIM), math.nan)
    mask = torch.zeros(padded.shape[:2], dtype=torch.bool)
    for row, item in enumerate(items):
        places = torch.randperm(padded.shape[1], generator=generator)[: len(item)].sort().values
        padded[row, places] = item
        mask[row, places] = True
    check_items(adapter, items, [(length,) for length in lengths], padded, mask)


@settings(max_examples=60)
@given(
    name=st.sampled_from(sorted(GRID)),
    sizes=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 7)), min_size=1, max_size=3),
    begin_end=st.booleans(),
)
@torch.no_grad()
def test_a_smaller_grid_has_the_same_slots_in_a_batch_as_alone(name, sizes, begin_end):
    adapter = build(name, begin_end=begin_end)
    grid = max(rows for rows, _ in sizes), max(columns for _, columns in sizes)
    padded = torch.full((len(sizes), *grid, IN_DIM), math.inf)
    mask = torch.zeros(len(sizes), *grid, dtype=torch.bool)
    items = []
    for row, (rows, columns) in enumerate(sizes):
        items.append(torch.randn(rows * columns, IN_DIM))
        padded[row, :rows, :columns] = items[-1].view(rows, columns, IN_DIM)
        mask[row, :rows, :columns] = True
    check_items(adapter, items, sizes, padded.flatten(1, 2), mask.flatten(1), grid)


@pytest.mark.parametrize(
    ("name", "size", "slots"),
    [
        ("linear", (17,), 17),
        ("mlp", (3, 5), 15),
        ("stacking", (17,), 6),
        ("convolution", (17,), 5),
        ("convolution", (1,), 1),
        ("even convolution", (17,), 6),
        ("perceiver", (17,), 5),
        ("shuffle", (5, 7), 12),
        ("shuffle by 3", (6, 7), 6),
    ],
)
def test_counts(name, size, slots):
    assert build(name).num_slots(size) == slots
    assert build(name, begin_end=True).num_slots(size) == slots + 2


def test_begin_and_end_vectors_enclose_each_item():
    adapter = build("stacking", begin_end=True)
    adapter.calibrate(2.0)
    mask = torch.arange(11) < torch.tensor([[11], [4], [0]])
    vectors, valid = adapter(torch.randn(3, 11, IN_DIM), mask)
    assert valid.sum(1).tolist() == [6, 4, 2]
    for learned, places in ((adapter.begin, [0, 0, 0]), (adapter.end, [5, 3, 1])):
        assert learned is not None
        expected = 2.0 * learned / learned.square().mean().sqrt()
        for row, place in enumerate(places):
            torch.testing.assert_close(vectors[row, place], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sorted(GRID))
def test_scale_and_gradients_of_all_parameters_and_features(name):
    adapter = build(name, begin_end=True, modality_vector=True)
    adapter.calibrate(3.7)
    features = 19.0 * torch.randn(2, 35, IN_DIM)
    features.requires_grad_()
    mask = torch.ones(2, 35, dtype=torch.bool)
    mask[1, 31:] = False
    grid = None
    if name.startswith("shuffle"):
        mask[1] = (torch.arange(35) < 28) & (torch.arange(35) % 7 < 5)  # 4 x 5 in a corner of 5 x 7
        grid = (5, 7)
    vectors, valid = adapter(features, mask, grid)
    scale = vectors[valid].square().mean(1).sqrt()
    torch.testing.assert_close(scale, torch.full_like(scale, 3.7), rtol=1e-3, atol=0)  # the norm's epsilon
    assert scale_ratio(vectors, valid, 3.7).item() == pytest.approx(1.0, abs=1e-4)
    assert scale_ratio(vectors * 5, valid, 3.7).item() == pytest.approx(5.0, abs=1e-3)

    (vectors * torch.randn_like(vectors)).sum().backward()
    for parameter_name, parameter in adapter.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().max() > 1e-8, parameter_name
    assert features.grad is not None
    assert torch.equal(features.grad.abs().amax(2) > 0, mask)


def test_the_modality_vector_starts_at_zero_and_is_added_to_every_slot():
    plain, marked = build("linear"), build("linear", modality_vector=True)
    features, mask = torch.randn(2, 5, IN_DIM), torch.ones(2, 5, dtype=torch.bool)
    torch.testing.assert_close(plain(features, mask), marked(features, mask))
    assert marked.modality_vector is not None
    torch.nn.init.normal_(marked.modality_vector)
    assert (plain(features, mask)[0] != marked(features, mask)[0]).any(2).all()


@torch.no_grad()
def test_stacking_and_shuffling_concatenate_the_right_features():
    stacking, shuffle = build("stacking"), build("shuffle by 3")
    seen = []
    for adapter in (stacking, shuffle):
        adapter.projection.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    features = torch.randn(2, 20, IN_DIM)
    mask = torch.ones(2, 20, dtype=torch.bool)
    stacking(features, mask)
    assert seen[0].shape == (2, 7, 3 * IN_DIM)
    assert torch.equal(seen[0][1, 2], torch.cat([features[1, 6], features[1, 7], features[1, 8]]))
    assert torch.equal(seen[0][1, 6], torch.cat([features[1, 18], features[1, 19], torch.zeros(IN_DIM)]))

    shuffle(features, mask, (4, 5))
    assert seen[1].shape == (2, 4, 9 * IN_DIM)
    square = torch.zeros(6, 6, IN_DIM)
    square[:4, :5] = features[1].view(4, 5, IN_DIM)
    assert torch.equal(seen[1][1, 1], square[:3, 3:].flatten())
    assert torch.equal(seen[1][1, 2], square[3:, :3].flatten())


@torch.no_grad()
def test_a_perceiver_depends_on_the_order_and_the_grid():
    adapter = build("perceiver")
    features, mask = torch.randn(1, 15, IN_DIM), torch.ones(1, 15, dtype=torch.bool)
    forward, _ = adapter(features, mask)
    for other in (adapter(features.flip(1), mask)[0], adapter(features, mask, (3, 5))[0]):
        assert (forward - other).abs().max() > 1e-3
    tall = adapter(features, mask, (5, 3))[0]
    assert (tall - adapter(features, mask, (3, 5))[0]).abs().max() > 1e-3


@pytest.mark.parametrize("name", sorted(SEQUENCE))
def test_an_adapter_in_bfloat16_takes_float32_features(name):
    features, mask = torch.randn(2, 5, IN_DIM), torch.ones(2, 5, dtype=torch.bool)
    adapter = build(name, begin_end=True, modality_vector=True)
    reference, _ = adapter(features, mask)
    vectors, _ = adapter.bfloat16()(features, mask)
    assert vectors.dtype == torch.bfloat16
    assert torch.nn.functional.cosine_similarity(vectors.float(), reference, dim=2).min() > 0.99
    with torch.autocast("cpu", torch.bfloat16):
        vectors, _ = adapter.float()(features, mask)
    assert vectors.dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PixelShuffle(IN_DIM, D_MODEL)(torch.zeros(1, 6, IN_DIM), torch.ones(1, 6) > 0), "no grid"),
        (lambda: PixelShuffle(IN_DIM, D_MODEL).num_slots((6,)), "PixelShuffle needs.*FrameStacking"),
        (lambda: Linear(IN_DIM, D_MODEL).num_slots((2, 3, 5)), r"\(2, 3, 5\).*\(rows, columns\)"),
        (lambda: PerceiverResampler(IN_DIM, D_MODEL, heads=2), "width 13.*set width or heads"),
        (lambda: StridedConvolution(IN_DIM, D_MODEL, stride=4, kernel=3), "kernel 3.*stride 4"),
        (lambda: FrameStacking(IN_DIM, D_MODEL, stack=0), "stack 0"),
        (lambda: MLP(IN_DIM, D_MODEL, hidden=0), "hidden 0"),
        (lambda: PixelShuffle(IN_DIM, D_MODEL, factor=-1), "factor -1"),
        (lambda: Linear(0, D_MODEL), "in_dim 0"),
    ],
)
def test_invalid_options_are_refused(make, words):
    with pytest.raises(UserError, match=words):
        make()


def test_a_recipe_names_the_class_and_the_model_gives_the_widths():
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--adapter", type=Callable[[int, int], Adapter])
    for name, options in {
        "Linear": {"begin_end": True},
        "MLP": {"hidden": 2048},
        "FrameStacking": {"stack": 5, "modality_vector": True},
        "StridedConvolution": {"stride": 2, "kernel": 5},
        "PixelShuffle": {"factor": 2},
        "PerceiverResampler": {"queries": 3, "heads": 2, "width": 8},
    }.items():
        block = {"class_path": f"kebyt5_xm.adapters.{name}", "init_args": options}
        parsed = parser.instantiate(parser.parse_object({"adapter": block}))
        adapter = parsed.adapter(IN_DIM, D_MODEL)
        assert type(adapter).__name__ == name
        assert (adapter.in_dim, adapter.d_model) == (IN_DIM, D_MODEL)
    with pytest.raises(jsonargparse.ArgumentError, match="hiden"):
        parser.parse_object({"adapter": {"class_path": "kebyt5_xm.adapters.MLP", "init_args": {"hiden": 1}}})
