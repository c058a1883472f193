"""Beams and sampling: the ids and distributions of transformers; and which arguments of `answer` run here."""

from typing import Any

import pytest
import torch
from tiny_model import ROWS, tiny_model
from torch import Tensor
from transformers import GenerationConfig
from transformers.generation.logits_process import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from kebyt5_xm.errors import UserError
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.decoding import arguments as arguments_module
from kebyt5_xm.model.decoding.arguments import parse_generation
from kebyt5_xm.model.decoding.beams import BeamSearch
from kebyt5_xm.model.decoding.decoder import ModuleDecoder
from kebyt5_xm.model.decoding.sampling import Sampler
from kebyt5_xm.vocabulary import EOS_ID, PAD_ID, decode


def ending_model(factor: float) -> CrossModalT5:
    """Return a model whose answers end more often with a larger factor."""
    model = tiny_model()
    with torch.no_grad():
        model.backbone.lm_head.weight[EOS_ID] *= factor
    return model


def padded(ids: Tensor) -> Tensor:
    """Return ids with PAD after the end; transformers fills beams up with the end of sequence."""
    after = (ids == EOS_ID).cumsum(1) - (ids == EOS_ID).long() > 0
    return ids.masked_fill(after, PAD_ID)


def generated(model: CrossModalT5, rows: Any, **given: Any) -> tuple[Tensor, Tensor]:
    """Return our ids and transformers', without the start id."""
    inputs = model.processor(rows)
    generation = parse_generation(model.generation_config, given)
    assert generation is not None
    with torch.no_grad():
        states = model.encode(**inputs).last_hidden_state
    assert states is not None
    theirs = model.generate(**inputs, **given)
    assert isinstance(theirs, Tensor)
    return generation(model, states, inputs["attention_mask"]), padded(theirs[:, 1:])


@pytest.mark.parametrize("factor", [0.5, 2.0, 4.0])
@pytest.mark.parametrize(
    "given",
    [
        {"num_beams": 2, "max_new_tokens": 1},
        {"num_beams": 3, "max_new_tokens": 23},
        {"num_beams": 4, "max_length": 70, "num_return_sequences": 3},
        {"num_beams": 3, "max_new_tokens": 23, "length_penalty": 2.5, "num_return_sequences": 3},
        {"num_beams": 3, "max_new_tokens": 23, "length_penalty": 0.0},
        {"num_beams": 3, "max_new_tokens": 23, "length_penalty": -1.5, "early_stopping": "never"},
        {"num_beams": 3, "max_new_tokens": 23, "early_stopping": True, "num_return_sequences": 3},
        {
            "num_beams": 3,
            "max_new_tokens": 40,
            "length_penalty": 1.5,
            "early_stopping": "never",
            "num_return_sequences": 3,
        },
    ],
    ids=str,
)
def test_beams_are_those_of_transformers(factor: float, given: dict[str, Any]) -> None:
    model = ending_model(factor)
    for rows in (ROWS, ROWS[:1]):
        ours, theirs = generated(model, rows, **given)
        assert ours.equal(theirs)


def test_the_cases_of_beams_end_at_different_lengths() -> None:
    ids = generated(ending_model(4.0), ROWS, num_beams=3, max_new_tokens=23, num_return_sequences=3)[0]
    lengths = (ids != PAD_ID).sum(1)
    assert lengths.min() < 5 < lengths.max()


def test_beams_by_module_calls_are_the_same() -> None:
    model = ending_model(2.0)
    inputs = model.processor(ROWS)
    with torch.no_grad():
        states = model.encode(**inputs).last_hidden_state
    assert states is not None
    decoder = ModuleDecoder(model, states, inputs["attention_mask"], copies=3)
    expected = generated(model, ROWS, num_beams=3, max_new_tokens=23)[0]
    assert BeamSearch(3)(decoder, len(ROWS), 23).equal(expected)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 3.0])
@pytest.mark.parametrize(("top_k", "top_p"), [(50, 1.0), (0, 0.9), (7, 0.6), (0, 1e-6), (10_000, 1.0)])
def test_sampling_draws_from_the_distribution_of_transformers(
    temperature: float, top_k: int, top_p: float
) -> None:
    torch.manual_seed(7)
    logits = torch.randn(5, 384) * 3
    warpers: list[Any] = [TemperatureLogitsWarper(temperature)]
    warpers += [TopKLogitsWarper(top_k)] if top_k else []
    warpers += [TopPLogitsWarper(top_p)] if top_p < 1 else []
    expected = LogitsProcessorList(warpers)(torch.zeros(5, 1, dtype=torch.long), logits.clone())
    found = Sampler(temperature, top_k, top_p).filter(logits)
    torch.testing.assert_close(found.softmax(-1), expected.softmax(-1))


def test_drawn_ids_follow_their_probabilities_and_the_generator() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, -50.0]]).expand(20_000, -1)
    sampler = Sampler(generator=torch.Generator().manual_seed(1))
    shares = sampler(logits).bincount(minlength=4) / 20_000
    torch.testing.assert_close(shares, logits[0].softmax(0), atol=0.02, rtol=0)  # 5 standard errors
    model = tiny_model()
    drawn = [
        model.answer(
            ROWS,
            do_sample=True,
            max_new_tokens=9,
            generator=torch.Generator().manual_seed(seed),
            n=2,
        )
        for seed in (1, 1, 2)
    ]
    assert [len(answers) for answers in drawn[0]] == [2] * len(ROWS)
    assert drawn[0] == drawn[1] != drawn[2]
    assert any(first != second for first, second in drawn[0])


def test_answers_are_decoded_here_or_by_transformers(monkeypatch) -> None:
    model = tiny_model()
    inputs = model.processor(ROWS)

    def theirs(**given: Any) -> list[str]:
        return [decode(row) for row in model.generate(**inputs, **given).numpy()]

    runs: list[Any] = []
    for name in ("__call__", "blocks"):
        call = getattr(arguments_module.Generation, name)
        monkeypatch.setattr(
            arguments_module.Generation,
            name,
            lambda self, *inputs, call=call, **options: runs.append(self) or call(self, *inputs, **options),
        )
    for given in (
        {},
        {"max_length": 8},
        {"num_beams": 3},
        {
            "generation_config": GenerationConfig(
                max_new_tokens=7, eos_token_id=EOS_ID, decoder_start_token_id=0
            )
        },
    ):
        limit = {} if {"max_length", "generation_config"} & given.keys() else {"max_new_tokens": 13}
        assert model.answer(ROWS, **given, **limit, valid_utf8=False) == theirs(**given, **limit)
        assert runs.pop()
    for given in (
        {"repetition_penalty": 1.5},
        {"min_new_tokens": 5},
        {"use_cache": False},
        {"no_repeat_ngram_size": 2},
        {"eos_token_id": 80},
        {
            "generation_config": GenerationConfig(
                max_new_tokens=7, bad_words_ids=[[70]], decoder_start_token_id=0
            )
        },
    ):
        limit = {} if "generation_config" in given else {"max_new_tokens": 13}
        assert model.answer(ROWS, **given, **limit, valid_utf8=False) == theirs(**given, **limit)
        assert not runs
    torch.manual_seed(1)
    model.answer(ROWS[0], do_sample=True, num_beams=2, max_new_tokens=3)
    assert not runs
    model.generation_config.repetition_penalty = 2.0
    model.answer(ROWS[0], max_new_tokens=3)
    assert not runs


def test_settings_of_the_model_count_unless_given() -> None:
    config = GenerationConfig(do_sample=True, top_k=0, temperature=0.5, max_new_tokens=9, pad_token_id=0)
    found = parse_generation(config, {"temperature": 0.25, "max_length": 5})
    assert found is not None
    assert found.sampler == Sampler(temperature=0.25, top_k=0)
    assert found.max_length == 4
    config = GenerationConfig(num_beams=2, length_penalty=0.0, max_new_tokens=9, early_stopping=True)
    found = parse_generation(config, {"max_new_tokens": 7})
    assert found is not None
    assert (found.beams, found.max_length) == (BeamSearch(2, 0.0, True), 7)
    assert parse_generation(GenerationConfig(use_cache=False), {}) is None
    assert parse_generation(GenerationConfig(eos_token_id=[1, 2]), {}) is None


def test_a_generator_needs_sampling_of_ours() -> None:
    model = tiny_model()
    for given in ({}, {"num_beams": 2}, {"do_sample": True, "min_p": 0.1}):
        with pytest.raises(UserError, match=r"found a generator with .*do_sample=True"):
            model.answer(ROWS[0], generator=torch.Generator(), **given)
