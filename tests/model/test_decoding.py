"""Decoding: the ids and logits of transformers, by fast steps and by module calls."""

from typing import Any

import pytest
import torch
from tiny_model import ROWS, tiny_model
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from kebyt5_xm.model.backbone import Backbone
from kebyt5_xm.model.configuration import CrossModalT5Config
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.decoding import Decoder, greedy_decode, open_decoder
from kebyt5_xm.model.decoding import fast as fast_module
from kebyt5_xm.model.decoding.decoder import ModuleDecoder
from kebyt5_xm.model.decoding.fast import FastDecoder
from kebyt5_xm.model.decoding.graph import GraphDecoder
from kebyt5_xm.model.decoding.search import choose_best, decode
from kebyt5_xm.model.decoding.weights import read_weights
from kebyt5_xm.model.t5 import saved_config, t5, t5_config
from kebyt5_xm.vocabulary import EOS_ID

TEXTS = [["좋은 영화였다"], ["bad"], ["그저 그런, 길고 긴 이야기"]]


@pytest.fixture(scope="module")
def model() -> CrossModalT5:
    return tiny_model()


def encoded(model: CrossModalT5, segments: Any) -> tuple[Tensor, Tensor]:
    """Return the encoder's states and their mask."""
    inputs = model.processor(segments)
    with torch.no_grad():
        states = model.encode(**inputs).last_hidden_state
    assert states is not None
    return states, inputs["attention_mask"]


def reference(model: CrossModalT5, states: Tensor, mask: Tensor, ids: Tensor) -> Tensor:
    """Return the logits [B, T, V] of the whole model for decoder inputs [B, T]."""
    with torch.no_grad():
        return model(encoder_outputs=(states,), attention_mask=mask, decoder_input_ids=ids).logits


def shaped(**changes: Any) -> CrossModalT5:
    """Return a text model with fields of its T5's config changed."""
    fields = {**saved_config(Backbone(shape={**SHAPE, "num_decoder_layers": 3}).config()), **changes}
    torch.manual_seed(5)
    backbone = t5(t5_config(fields))
    torch.nn.init.normal_(backbone.lm_head.weight, std=0.5)
    for name, parameter in backbone.named_parameters():
        if "layer_norm" in name or "relative_attention_bias" in name:
            torch.nn.init.normal_(parameter, mean=1.0)
    return CrossModalT5(CrossModalT5Config(saved_config(backbone.config)), backbone, {}).eval()


SHAPE = {"d_model": 29, "d_ff": 37, "num_heads": 3, "num_layers": 3, "num_decoder_layers": 2, "d_kv": 7}


@pytest.mark.parametrize("rows", [ROWS[:1], ROWS[1:2], ROWS, TEXTS], ids=["text", "image", "mixed", "texts"])
@pytest.mark.parametrize("max_length", [1, 11, 150])
def test_greedy_ids_are_those_of_transformers(model: CrossModalT5, rows: Any, max_length: int) -> None:
    inputs = model.processor(rows)
    expected = model.generate(**inputs, max_new_tokens=max_length, do_sample=False)[:, 1:]
    assert greedy_decode(model, *encoded(model, rows), max_length).equal(expected)


def test_rows_that_end_early_are_padded_and_the_longest_sets_the_length(model: CrossModalT5) -> None:
    torch.manual_seed(11)
    model = tiny_model()
    with torch.no_grad():
        model.backbone.lm_head.weight[EOS_ID] *= 2.5
    inputs = model.processor(ROWS)
    expected = model.generate(**inputs, max_new_tokens=97, do_sample=False)[:, 1:]
    lengths = (expected != 0).sum(1)
    assert lengths.min() < lengths.max() < 97, "the case is not tested: change the factor"
    found = greedy_decode(model, *encoded(model, ROWS), 97)
    assert found.equal(expected)
    done = torch.tensor([False, True, False, True, False])
    skipping = greedy_decode(model, *encoded(model, ROWS), 97, done)
    assert skipping.equal(expected[:, : skipping.shape[1]].masked_fill(done[:, None], 0))
    assert greedy_decode(model, *encoded(model, ROWS), 97, ~done | done).shape == (5, 0)


@pytest.mark.parametrize("max_fused", [0, 1 << 20])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"feed_forward_proj": "relu"},
        {"feed_forward_proj": "gelu"},
        {"feed_forward_proj": "silu"},
        {"feed_forward_proj": "gated-relu"},
        {"feed_forward_proj": "gated-silu"},
        {"layer_norm_epsilon": 0.5},
        {"relative_attention_num_buckets": 7, "relative_attention_max_distance": 13},
        {"num_heads": 1, "d_kv": 11},
        {"num_decoder_layers": 1},
    ],
    ids=str,
)
def test_logits_are_those_of_the_modules(monkeypatch, changes: dict[str, Any], max_fused: int) -> None:
    monkeypatch.setattr("kebyt5_xm.model.decoding.weights.MAX_FUSED", max_fused)
    model = shaped(**changes)
    states, mask = encoded(model, TEXTS)
    torch.manual_seed(2)
    ids = torch.randint(0, 259, (3, 83))
    decoder = open_decoder(model, states, mask)
    assert isinstance(decoder, FastDecoder)
    found = torch.cat([decoder.step(column).clone() for column in ids.split(1, dim=1)], dim=1)
    # fp32, sums in another order; logits reach about 10
    torch.testing.assert_close(found, reference(model, states, mask, ids), atol=2e-4, rtol=1e-4)


def static_decoder(model: CrossModalT5, *inputs: Any, **given: Any) -> GraphDecoder:
    """Return a decoder of static shapes, run step by step."""
    weights = read_weights(model.backbone)
    assert weights is not None
    return GraphDecoder(weights, *inputs, **given, capture=lambda step: step)


def decoders(model: CrossModalT5, states: Tensor, mask: Tensor, copies: int = 1) -> dict[str, Decoder]:
    return {
        "fast": open_decoder(model, states, mask, copies),
        "modules": ModuleDecoder(model, states, mask, copies),
        "static": static_decoder(model, states, mask, copies=copies),
    }


KINDS = ["fast", "modules", "static"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [TEXTS[:1], TEXTS], ids=["one", "three"])
def test_several_ids_in_one_pass_and_dropped_ids_give_the_same_logits(
    model: CrossModalT5, kind: str, rows: Any
) -> None:
    states, mask = encoded(model, rows)
    ids = torch.randint(0, 259, (len(rows), 101), generator=torch.Generator().manual_seed(3))
    expected = reference(model, states, mask, ids)
    decoder = decoders(model, states, mask)[kind]
    begin = 0
    for num_new, kept in ((1, 1), (5, 2), (3, 3), (60, 59), (1, 0), (7, 7), (13, 1), (11, 11)):
        found = decoder.step(ids[:, begin : begin + num_new])
        torch.testing.assert_close(found, expected[:, begin : begin + num_new], atol=2e-4, rtol=1e-4)
        begin += kept
        decoder.truncate(begin)
        assert decoder.length == begin


@pytest.mark.parametrize("kind", KINDS)
def test_copies_and_reordered_rows_continue_their_own_ids(model: CrossModalT5, kind: str) -> None:
    states, mask = encoded(model, TEXTS)
    generator = torch.Generator().manual_seed(4)
    ids = torch.randint(0, 259, (6, 5), generator=generator)
    rows = torch.tensor([1, 1, 2, 3, 5, 4])
    decoder = decoders(model, states, mask, copies=2)[kind]
    for column in ids.split(1, dim=1):
        decoder.step(column)
    decoder.reorder(rows)
    more = torch.randint(0, 259, (6, 2), generator=generator)
    found = torch.cat([decoder.step(more[:, :1]).clone(), decoder.step(more[:, 1:])], dim=1)
    twice = states.repeat_interleave(2, 0), mask.repeat_interleave(2, 0)
    expected = reference(model, *twice, torch.cat([ids[rows], more], dim=1))[:, 5:]
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)


def test_weights_are_never_those_of_an_earlier_step(model: CrossModalT5) -> None:
    model = tiny_model()
    states, mask = encoded(model, TEXTS)
    start = torch.zeros(3, 1, dtype=torch.long)
    before = open_decoder(model, states, mask).step(start).clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(encoder_outputs=(states,), attention_mask=mask, labels=torch.full((3, 4), 70)).loss.backward()
    optimizer.step()
    after = open_decoder(model, states, mask).step(start)
    assert (before - after).abs().max() > 1e-3
    torch.testing.assert_close(after, reference(model, states, mask, start), atol=2e-4, rtol=1e-4)


def test_decoding_leaves_no_trace_in_autograd(model: CrossModalT5) -> None:
    ids = greedy_decode(model, *encoded(model, TEXTS), 5)
    assert not ids.is_inference()
    model(**model.processor(TEXTS), labels=ids).loss.backward()
    model.zero_grad()


def test_bf16_keeps_its_precision(model: CrossModalT5) -> None:
    exact = tiny_model()
    states, mask = encoded(exact, TEXTS)
    ids = torch.randint(0, 259, (3, 19), generator=torch.Generator().manual_seed(6))
    expected = reference(exact, states, mask, ids)
    scale = expected.std()
    half = tiny_model().to(torch.bfloat16)
    decoder = open_decoder(half, states.bfloat16(), mask)
    assert isinstance(decoder, FastDecoder)
    error = (decoder.step(ids).float() - expected).std() / scale
    theirs = (reference(half, states.bfloat16(), mask, ids).float() - expected).std() / scale
    assert error < 1.5 * theirs < 0.15
    with torch.autocast("cpu", torch.bfloat16):
        mixed = open_decoder(exact, states, mask).step(ids)
        theirs = (reference(exact, states, mask, ids).float() - expected).std() / scale
    assert mixed.dtype == torch.bfloat16
    assert (mixed.float() - expected).std() / scale < 1.5 * theirs < 0.15


def test_other_decoders_are_called_as_modules(model: CrossModalT5) -> None:
    states, mask = encoded(model, TEXTS)
    expected = greedy_decode(model, states, mask, 7)

    def kind(changed: CrossModalT5) -> type:
        return type(open_decoder(changed, states, mask))

    checkpointing = tiny_model()
    checkpointing.backbone.activation_checkpointing_enable({"use_reentrant": False})
    assert kind(checkpointing.train()) is FastDecoder
    dropping = shaped(dropout_rate=0.1)
    assert kind(dropping) is FastDecoder
    assert kind(dropping.train()) is ModuleDecoder
    wrapped = tiny_model()
    block = wrapped.backbone.decoder.block[1].layer[2].DenseReluDense

    class Wrapper(torch.nn.Linear):
        pass

    wider = Wrapper(*block.wo.weight.T.shape, bias=False)
    wider.load_state_dict(block.wo.state_dict())
    block.wo = wider
    assert kind(wrapped) is ModuleDecoder
    assert greedy_decode(wrapped, states, mask, 7).equal(expected)
    zero3 = tiny_model()
    zero3.backbone.lm_head.weight.ds_id = 0  # pyright: ignore[reportAttributeAccessIssue] - DeepSpeed sets it
    assert kind(zero3) is ModuleDecoder
    gathered_elsewhere = tiny_model()
    gathered_elsewhere.backbone.shared.weight.untyped_storage().resize_(0)
    assert kind(gathered_elsewhere) is ModuleDecoder
    fsdp = tiny_model()
    block = fsdp.backbone.decoder.block[1]
    block.__class__ = type("FSDPT5Block", (FSDPModule, type(block)), {})  # as fully_shard does
    assert kind(fsdp) is ModuleDecoder
    partly_half = tiny_model()
    partly_half.backbone.lm_head.bfloat16()
    assert kind(partly_half) is ModuleDecoder


def test_all_ranks_take_as_many_steps(model: CrossModalT5, monkeypatch) -> None:
    """Sharded weights need as many calls on every rank: a rank whose rows are done goes on with the others."""
    states, mask = encoded(model, TEXTS)
    steps: list[int] = []
    step = fast_module.FastDecoder.step
    monkeypatch.setattr(fast_module.FastDecoder, "step", lambda self, ids: steps.append(1) or step(self, ids))
    asked: list[bool] = []

    def everywhere(here: bool) -> bool:
        asked.append(here)
        return len(asked) > 3

    ids = greedy_decode(model, states, mask, 97, torch.ones(3).bool(), everywhere)
    assert ids.shape == (3, 0)
    assert asked == [True] * 4
    assert len(steps) == 24


@pytest.mark.parametrize("capacity", [1, 70, 200])
def test_static_shapes_give_the_same_ids(model: CrossModalT5, capacity: int) -> None:
    """Steps beyond the capacity make the cache grow, and run without static shapes."""
    states, mask = encoded(model, ROWS)
    expected = greedy_decode(model, states, mask, 151)
    decoder = static_decoder(model, states, mask, capacity=capacity)
    assert decode(decoder, torch.zeros(5).bool(), 151, choose_best).equal(expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cuda_graph_gives_the_logits_of_the_modules(capfd, dtype: torch.dtype) -> None:
    model = tiny_model().to(torch.device("cuda"), dtype)
    inputs = model.processor(TEXTS).to("cuda")
    with torch.no_grad():
        states = model.encode(**inputs).last_hidden_state
    assert states is not None
    mask = inputs["attention_mask"]
    ids = torch.randint(0, 259, (3, 40), generator=torch.Generator().manual_seed(3)).to("cuda")
    decoder = open_decoder(model, states, mask, capacity=40)
    assert isinstance(decoder, GraphDecoder)
    found = torch.cat([decoder.step(column).clone() for column in ids.split(1, dim=1)], dim=1)
    assert "without a CUDA graph" not in capfd.readouterr().out
    tolerance = 1e-3 if dtype == torch.float32 else 0.5  # logits reach about 20
    torch.testing.assert_close(found, reference(model, states, mask, ids), atol=tolerance, rtol=0.02)
    assert greedy_decode(model, states, mask, 40).shape[0] == 3
