"""Drafting: greedy's ids whatever is guessed, fewer passes where guesses are right, and heads that are saved."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tiny_model import ROWS, SHAPE, tiny_model
from torch import Tensor

from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.decoding import open_decoder
from kebyt5_xm.model.decoding.drafting import (
    LONG,
    Drafter,
    HeadsDrafter,
    LookupDrafter,
    draft_blocks,
    draft_decode,
    make_drafters,
)
from kebyt5_xm.model.decoding.fast import FastDecoder
from kebyt5_xm.model.decoding.search import greedy_decode
from kebyt5_xm.model.draft_heads import DraftHeadsModule
from kebyt5_xm.vocabulary import EOS_ID

COPIED = list(b"the quick brown fox jumps over a lazy dog while it rains")


def with_heads(seed: int = 3, count: int = 3, **given: Any) -> CrossModalT5:
    model = tiny_model(seed=seed, **given)
    torch.manual_seed(seed + 1)
    model.draft_heads = DraftHeadsModule(count, SHAPE["d_model"], 384)
    return model


def states_of(model: CrossModalT5, segments: list[Any]) -> tuple[Tensor, Tensor, Tensor]:
    inputs = model.processor(segments)
    with torch.no_grad():
        states = model.encode(**inputs).last_hidden_state
    assert states is not None
    return states, inputs["attention_mask"], inputs["input_ids"]


class Guesses:
    """Guesses a continuation of a known answer, or anything else, and counts what was right."""

    def __init__(self, guess: Any) -> None:
        self.guess, self.right = guess, 0

    def propose(self, written: Sequence[int], state: Tensor | None) -> list[int]:
        return self.guess(written)

    def observe(self, num_right: int) -> None:
        self.right += num_right


class Counting(FastDecoder):
    """A decoder that counts its passes."""

    passes = 0

    def step(self, ids: Tensor) -> Tensor:
        self.passes += 1
        return super().step(ids)


class Script:
    """In place of a decoder: writes `target` whatever the input."""

    def __init__(self, target: list[int]) -> None:
        self.target, self.length, self.passes = [*target, EOS_ID], 0, 0
        self.final = torch.zeros(LONG + 1, 1)

    def step(self, ids: Tensor) -> Tensor:
        self.passes += 1
        places = [min(self.length + n, len(self.target) - 1) for n in range(ids.shape[1])]
        self.length += ids.shape[1]
        return torch.nn.functional.one_hot(torch.tensor([[self.target[p] for p in places]]), 384).float()

    def truncate(self, length: int) -> None:
        self.length = length


def lookup(source: Sequence[int], target: list[int], max_length: int = 500) -> tuple[list[int], int]:
    """Return what is written by a decoder that writes `target`, and the number of its passes."""
    script = Script(target)
    drafters: list[Drafter] = [LookupDrafter([*source, EOS_ID], 2.0)]
    return draft_decode(script, drafters, max_length)[0].tolist(), script.passes  # pyright: ignore


def test_a_copied_text_takes_few_passes() -> None:
    found, passes = lookup(COPIED, COPIED)
    assert found == [*COPIED, EOS_ID]
    assert passes < len(found) / 4
    changed = [*COPIED[:20], 255, *COPIED[21:]]
    found, passes = lookup(COPIED, changed)
    assert found == [*changed, EOS_ID]
    assert passes < len(found) / 2


def test_a_repeated_answer_takes_few_passes() -> None:
    found, passes = lookup([], COPIED * 3)
    assert found == [*COPIED * 3, EOS_ID]
    assert passes < len(COPIED) * 2


def test_matches_that_go_on_otherwise_are_given_up() -> None:
    """Every five ids of the answer are in the input, and every guess is wrong."""
    draw = random.Random(3)
    target = [draw.randrange(3, 250) for _ in range(400)]
    wrong = [id_ for n in range(395) for id_ in (*target[n : n + 5], 255)]
    found, passes = lookup([*wrong, *[254] * 9], target)
    assert found == [*target, EOS_ID]
    assert passes == 401
    script = Script(target)
    calls = Guesses(lambda written: [])
    drafter = LookupDrafter([*wrong, *[254] * 9], 2.0)
    calls.guess = lambda written: drafter.propose(written, None)
    calls.observe = lambda num_right: (drafter.observe(num_right), setattr(calls, "right", calls.right + 1))
    draft_decode(script, [calls], 401)  # pyright: ignore
    assert calls.right < 15, "guesses that were all wrong"


def test_a_guess_ends_before_a_slot() -> None:
    drafter = LookupDrafter([*b"abcdefgh", 0, 0, *b"ijk"], 0.0)
    assert drafter.propose(list(b"abcdef"), None) == list(b"gh")


@pytest.mark.parametrize("max_length", [1, 2, 47])
@pytest.mark.parametrize("row", range(len(ROWS)))
def test_wrong_and_right_guesses_change_nothing(row: int, max_length: int) -> None:
    for seed in (3, 5):
        model = tiny_model(seed=seed)
        with torch.no_grad():
            model.backbone.lm_head.weight[EOS_ID] *= 1 + seed / 2
        states, mask, _ = states_of(model, [ROWS[row]])
        expected = greedy_decode(model, states, mask, max_length)
        ids, draw = expected[0].tolist(), random.Random(row)

        def half_right(written: Sequence[int], ids: list[int] = ids, draw: random.Random = draw) -> list[int]:
            right = ids[len(written) : len(written) + draw.randrange(9)]
            return [*right, *(draw.randrange(384) for _ in range(draw.randrange(9)))]

        guesses = {
            "right": lambda written, ids=ids: ids[len(written) : len(written) + 7],
            "beyond": lambda written, ids=ids: [*ids[len(written) :], *range(3, 30)],
            "wrong": lambda written: [383] * 15,
            "ends": lambda written: [EOS_ID] * 3,
            "half": half_right,
        }
        for name, guess in guesses.items():
            decoder = open_decoder(model, states, mask, capacity=max_length)
            assert isinstance(decoder, FastDecoder)
            decoder.__class__ = Counting
            drafter = Guesses(guess)
            found = draft_decode(decoder, [drafter], max_length)
            assert found.equal(expected), (name, seed)
            assert decoder.length <= max_length + 1  # pyright: ignore
            if name == "right":
                assert decoder.passes <= len(ids) // 8 + 1  # pyright: ignore
                assert drafter.right >= len(ids) - decoder.passes  # pyright: ignore


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_heads_propose_what_their_module_finds_most_probable(tmp_path, dtype: str) -> None:
    model = with_heads(specs={})
    with torch.no_grad():
        model.backbone.decoder.final_layer_norm.weight.normal_(mean=1.0)
    model.save_pretrained(tmp_path)
    model = CrossModalT5.from_pretrained(tmp_path, dtype=dtype)
    assert model.draft_heads is not None
    states, mask, input_ids = states_of(model, ["가나다 abc"])
    decoder = open_decoder(model, states, mask)
    assert isinstance(decoder, FastDecoder)
    drafter = make_drafters(model, decoder, input_ids)[1]
    assert isinstance(drafter, HeadsDrafter)
    following = int(decoder.step(torch.tensor([[0]])).argmax())
    guess = drafter.propose([following], decoder.final[0])
    if dtype == "int8":
        assert len(guess) == 3
        return
    ids = torch.tensor([[0, following, *guess]])
    with torch.no_grad():
        final = model.backbone.decoder(
            input_ids=ids, encoder_hidden_states=states, encoder_attention_mask=mask, use_cache=False
        ).last_hidden_state
        scores = model.draft_heads(final, ids)[:, 0, 0].float()
    best = scores.max(-1).values
    assert scores.gather(1, torch.tensor(guess)[:, None])[:, 0].tolist() == pytest.approx(
        best.tolist(), abs=0.05
    )
    assert (scores.mean(-1) + 0.5 < best).all(), "any guess would pass"


def test_answers_are_greedys_on_every_seed_with_and_without_heads() -> None:
    texts = ["좋은 영화였다", "aaaa bbbb aaaa bbbb", "고침: 나라 말쌈이 중국과 달라"]
    for seed in range(4):
        model = with_heads(seed=seed)
        for text in texts:
            states, mask, input_ids = states_of(model, [[text]])
            expected = greedy_decode(model, states, mask, 90)
            for heads in (model.draft_heads, None):
                model.draft_heads = heads
                decoder = open_decoder(model, states, mask, capacity=90)
                assert isinstance(decoder, FastDecoder)
                assert draft_decode(decoder, make_drafters(model, decoder, input_ids), 90).equal(expected)


def test_answer_drafts_one_row_alone(monkeypatch) -> None:
    model, calls = with_heads(), []
    monkeypatch.setattr(
        "kebyt5_xm.model.decoding.arguments.draft_blocks",
        lambda *given: calls.append(given) or draft_blocks(*given),
    )
    alone = [model.answer(row, max_new_tokens=60) for row in ROWS]
    assert len(calls) == len(ROWS)
    assert alone == model.answer(ROWS, max_new_tokens=60)
    model.answer(ROWS[0], max_new_tokens=5, do_sample=True)
    model.answer(ROWS[0], max_new_tokens=5, num_beams=2)
    assert len(calls) == len(ROWS)


def test_heads_see_the_state_behind_the_last_written_id() -> None:
    model = tiny_model()
    states, mask, _ = states_of(model, [ROWS[0]])
    single = open_decoder(model, states, mask, capacity=30)
    assert isinstance(single, FastDecoder)
    ids, expected = [0], []
    for _ in range(20):
        ids.append(int(single.step(torch.tensor([ids[-1:]])).argmax()))
        expected.append(single.final[0].clone())
    decoder = open_decoder(model, states, mask, capacity=30)
    assert isinstance(decoder, FastDecoder)
    seen: dict[int, Tensor] = {}

    class Watching(Guesses):
        def propose(self, written: Sequence[int], state: Tensor | None) -> list[int]:
            if state is not None:
                seen[len(written)] = state.clone()
            return [*ids[len(written) + 1 : len(written) + 1 + len(written) % 4], 383, 383]

    draft_decode(decoder, [Watching(None)], 20)
    assert len(seen) > 3
    for count, state in seen.items():
        torch.testing.assert_close(state, expected[count - 1], atol=1e-5, rtol=1e-4)
