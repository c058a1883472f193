"""Attention by torch's kernels: outputs and all gradients equal those of the reference, in every pattern."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration

from kebyt5_xm.errors import UserError
from kebyt5_xm.model.attention import banded, biased, materialized, reference, sdpa
from kebyt5_xm.model.attention.choice import WITHOUT_DROPOUT, Implementation
from kebyt5_xm.model.attention.pattern import Pattern, bias_table, spread
from kebyt5_xm.model.backbone import Backbone
from kebyt5_xm.model.configuration import CrossModalT5Config
from kebyt5_xm.model.cross_modal import CrossModalT5

ROWS, HEADS, WIDTH, MAX_DISTANCE = 3, 2, 8, 5
SHAPE = {"d_model": 24, "d_kv": 6, "d_ff": 40, "num_heads": 4, "num_layers": 2, "num_decoder_layers": 2}


def runs(*sizes: tuple[int, ...]) -> Tensor:
    """Return segments from the sizes of each row's runs, the last one padding."""
    rows = [
        [n for n, size in enumerate((*row[:-1], 0), 1) for _ in range(size)] + [0] * row[-1] for row in sizes
    ]
    return torch.tensor(rows)


def patterns(length: int) -> Iterator[tuple[str, Pattern]]:
    yield "full", Pattern()
    yield "causal", Pattern(causal=True)
    padded = runs((length, 0), (length - 4, 4), (3, length - 3))
    yield "padded", Pattern(query_segments=padded, key_segments=padded)
    packed = runs((5, length - 8, 2, 1), (length, 0), (1, 1, length - 9, 7))
    yield "packed", Pattern(query_segments=packed, key_segments=packed)
    yield "packed, causal", Pattern(causal=True, query_segments=packed, key_segments=packed)
    holes = padded.clone()
    holes[:, 2:7] = 0
    yield "holes", Pattern(query_segments=holes, key_segments=holes)
    empty = padded * torch.tensor([[1], [0], [1]])
    yield "a row of padding", Pattern(query_segments=empty, key_segments=empty)
    slots = torch.rand(ROWS, length) < 0.3
    yield "slots", Pattern(query_slots=slots, key_slots=slots)
    yield (
        "packed, slots",
        Pattern(query_segments=packed, key_segments=packed, query_slots=slots, key_slots=slots),
    )
    positions = torch.randint(0, 3, (ROWS, length)).cumsum(1)
    scores = torch.randn(ROWS, length, dtype=torch.float64, requires_grad=True)
    yield "positions", Pattern(query_positions=positions, key_positions=positions)
    yield "scores", Pattern(key_scores=scores)
    yield (
        "everything",
        Pattern(True, packed, packed, positions, positions, scores, slots, slots),
    )


def random_inputs(queries: int, keys: int) -> list[Tensor]:
    """Return queries, keys, values, a table and the output's gradient, laid out as in T5."""
    shapes = [(ROWS, length, HEADS, WIDTH) for length in (queries, keys, keys, queries)]
    *tensors, gradient = (torch.randn(s, dtype=torch.float64).transpose(1, 2) for s in shapes)
    table = torch.randn(HEADS, 2 * MAX_DISTANCE + 1, dtype=torch.float64)
    return [*(t.requires_grad_() for t in (*tensors, table)), gradient]


def results(compute, inputs: list[Tensor], pattern: Pattern, with_table: bool = True) -> list[Tensor]:
    """Return the output and the gradients of everything that has one."""
    query, key, value, table, gradient = inputs
    leaves = [query, key, value, *([table] if with_table else [])]
    leaves += [pattern.key_scores] if pattern.key_scores is not None else []
    output = compute(query, key, value, table if with_table else None, pattern)
    return [output, *torch.autograd.grad(output, leaves, gradient)]


NAMES = [name for name, _ in patterns(29)]


@pytest.mark.parametrize("max_kept", [biased.MAX_KEPT, 0])
@pytest.mark.parametrize("length", [29, 301])
@pytest.mark.parametrize("name", NAMES)
def test_outputs_and_gradients_equal_the_reference(
    name: str, length: int, max_kept: int, monkeypatch
) -> None:
    torch.manual_seed(1)
    monkeypatch.setattr(biased, "MAX_KEPT", max_kept)
    monkeypatch.setattr(materialized, "NUM_AT_A_TIME", 2 * HEADS * length**2)  # two rows, then one
    pattern = dict(patterns(length))[name]
    inputs = random_inputs(length, length)
    expected = results(reference.attention, inputs, pattern)
    for found, wanted in zip(results(sdpa.attention, inputs, pattern), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("length", [65, 96, 97, 128, 131])
def test_the_bias_gradient_of_blocks_equals_that_of_all_scores(length: int, monkeypatch) -> None:
    torch.manual_seed(2)
    monkeypatch.setattr(banded, "MIN_BLOCKS", 2)
    inputs = random_inputs(length, length)
    expected = results(reference.attention, inputs, Pattern())
    calls = []
    monkeypatch.setattr(biased.banded, "backward", lambda *a, run=banded.backward: calls.append(1) or run(*a))
    for found, wanted in zip(results(sdpa.attention, inputs, Pattern()), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
    assert calls


def test_cross_attention_sees_the_valid_keys_of_its_segment() -> None:
    torch.manual_seed(3)
    inputs = random_inputs(7, 29)
    targets = runs((3, 2, 1, 1), (7, 0), (2, 5, 0))
    for pattern in (
        Pattern(),
        Pattern(key_segments=runs((29, 0), (20, 9), (1, 28))),
        Pattern(query_segments=targets, key_segments=runs((20, 3, 4, 2), (29, 0), (3, 20, 6))),
        Pattern(query_segments=targets, key_segments=runs((29, 0), (29, 0), (29, 0))),
    ):
        expected = results(reference.attention, inputs, pattern, with_table=False)
        found = results(sdpa.attention, inputs, pattern, with_table=False)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_queries_that_see_nothing_give_zeros_and_no_gradients() -> None:
    torch.manual_seed(4)
    segments = runs((20, 9), (0, 29), (29, 0))
    pattern = Pattern(query_segments=segments, key_segments=segments)
    hidden = (segments == 0)[:, None, :, None]
    for compute in (reference.attention, sdpa.attention):
        output, *gradients = results(compute, random_inputs(29, 29), pattern)
        assert not output.masked_select(hidden).any()
        assert all(not gradient.masked_select(hidden).any() for gradient in gradients[:3])


def test_the_table_says_what_transformers_bias_says() -> None:
    backbone = Backbone(shape=SHAPE).build()
    for stack, constant_from in ((backbone.encoder, 91), (backbone.decoder, 113)):
        attention = stack.block[0].layer[0].SelfAttention
        table = bias_table(attention)
        assert table.shape == (SHAPE["num_heads"], 2 * constant_from + 1)
        for queries, keys in ((300, 300), (3, 200), (200, 1)):
            assert spread(table, queries, keys).equal(attention.compute_bias(queries, keys))


def plain_t5(trained: T5ForConditionalGeneration) -> T5ForConditionalGeneration:
    """Return transformers' own model with the same weights."""
    config = copy.deepcopy(trained.config)
    config._attn_implementation = "eager"
    plain = T5ForConditionalGeneration(config)
    plain.load_state_dict(trained.state_dict())
    plain.set_input_embeddings(plain.shared)
    return plain.train()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_model_gives_the_outputs_and_gradients_of_transformers(dtype, checkpointing) -> None:
    torch.manual_seed(5)
    backbone = Backbone(shape=SHAPE, gradient_checkpointing=checkpointing).build().train()
    model = CrossModalT5(CrossModalT5Config(backbone.config.to_dict()), backbone, {})
    ids, labels = torch.randint(3, 248, (3, 131)), torch.randint(3, 248, (3, 29))
    mask = torch.arange(131) < torch.tensor([131, 100, 7])[:, None]
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    loss.backward()
    plain = plain_t5(backbone)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        theirs = plain(input_ids=ids, attention_mask=mask, labels=labels).loss
    theirs.backward()
    half = dtype == torch.bfloat16
    torch.testing.assert_close(loss, theirs, rtol=1e-2 if half else 1e-5, atol=0)
    for (name, ours), other in zip(backbone.named_parameters(), plain.parameters(), strict=True):
        assert ours.grad is not None
        assert other.grad is not None
        assert (ours.grad - other.grad).norm() < (0.06 if half else 1e-4) * other.grad.norm(), name


def cross_modal(attention: Implementation) -> CrossModalT5:
    torch.manual_seed(5)
    backbone = Backbone(shape=SHAPE, attention=attention).build()
    return CrossModalT5(CrossModalT5Config(backbone.config.to_dict()), backbone, {})


def test_flex_answers_on_the_cpu_and_names_what_trains_there() -> None:
    model, other = cross_modal("flex").eval(), cross_modal("sdpa").eval()
    texts = [["나라 말이"], ["x"]]
    assert model.answer(texts, max_new_tokens=7) == other.answer(texts, max_new_tokens=7)
    with pytest.raises(UserError, match=r"FlexAttention found the CPU, .*use sdpa"):
        model.train()(input_ids=torch.tensor([[5, 6, 1]]), labels=torch.tensor([[7, 1]]))


def test_triton_names_what_runs_on_a_cpu() -> None:
    with pytest.raises(UserError, match=r"Triton found .*cpu.*use sdpa|found no Triton.*use sdpa"):
        cross_modal("triton").answer(["x"])


@pytest.mark.parametrize("name", WITHOUT_DROPOUT)
def test_dropout_is_refused_where_weights_cannot_be_dropped(name: Implementation) -> None:
    with pytest.raises(UserError, match=f"attention: {name} has no dropout.*attention: sdpa, or dropout: 0"):
        Backbone(shape=SHAPE, attention=name, dropout=0.1)


def test_dropout_of_weights_changes_what_trains_alone() -> None:
    backbone = Backbone(shape=SHAPE, dropout=0.3).build()
    model = CrossModalT5(CrossModalT5Config(backbone.config.to_dict()), backbone, {})
    given = {"input_ids": torch.tensor([[5, 6, 1]]), "labels": torch.tensor([[7, 1]])}
    assert not model.train()(**given).loss.equal(model(**given).loss)
    assert model.eval()(**given).loss.equal(model(**given).loss)
