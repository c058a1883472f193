"""The delete gate: soft and hard deletion, distances in the input, rows, decoders, saving."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import LABELS, ROWS, logits, tiny_model
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from kebyt5_xm.errors import UserError
from kebyt5_xm.model import encoder_mask
from kebyt5_xm.model.cross_attention import mean_cross_attention
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.decoding.decoder import ModuleDecoder
from kebyt5_xm.model.decoding.opening import open_decoder
from kebyt5_xm.model.delete_gate import (
    DeleteGate,
    GatedStates,
    Shortened,
    decide,
    input_weights,
    states_and_mask,
)

GATE = {"layer": 1}


def gated_model(bias: float = 0.0, **fields: Any) -> CrossModalT5:
    """Return a tiny model whose gate deletes about half of the positions."""
    model = tiny_model(delete_gate=GATE, **fields)
    assert model.delete_gate is not None
    torch.manual_seed(7)
    torch.nn.init.normal_(model.delete_gate.weight)
    model.delete_gate.bias.data.fill_(bias)
    return model


def open_gate(model: CrossModalT5) -> CrossModalT5:
    """Let the gate keep every position with G = 0 exactly."""
    assert model.delete_gate is not None
    model.delete_gate.bias.data.fill_(-1000.0)
    return model


def encoded(model: CrossModalT5, segments: Any) -> GatedStates:
    with torch.no_grad():
        found = model.encode(**model.processor(segments))
    assert isinstance(found, GatedStates)
    return found


def soft_logits(model: CrossModalT5, segments: Any, labels: Tensor = LABELS) -> Tensor:
    inputs = model.processor(segments)
    labels = labels.expand(len(inputs["input_ids"]), -1)
    model.train()
    output = model(**inputs, decoder_input_ids=model.shift_right(labels), use_cache=False).logits
    model.eval()
    return output.detach()


@pytest.mark.parametrize("soft", [False, True])
def test_an_open_gate_changes_nothing(soft: bool) -> None:
    model = open_gate(gated_model())
    plain = tiny_model()
    plain.load_state_dict({key: t for key, t in model.state_dict().items() if "delete_gate" not in key})
    found = soft_logits(model, ROWS) if soft else logits(model, ROWS)
    torch.testing.assert_close(found, logits(plain, ROWS), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("slot_bias", ["shared", "zero"])
def test_hard_deletion_is_soft_deletion_without_the_deleted(
    monkeypatch: pytest.MonkeyPatch, slot_bias: str
) -> None:
    model = gated_model(slot_bias=slot_bias)
    states = encoded(model, ROWS)
    assert states.gate is not None
    assert states.positions is not None
    assert states.positions.shape[1] < states.gate.shape[1]  # rows are shorter
    hard = logits(model, ROWS)
    from kebyt5_xm.model import gated_encoder

    def infinite(gate: Tensor, valid: Tensor | None) -> Tensor:
        return encoder_mask.join(valid, torch.where(gate > 0.5, -1e30, -30.0 * gate))

    monkeypatch.setattr(gated_encoder, "scores", infinite)
    torch.testing.assert_close(soft_logits(model, ROWS), hard, rtol=1e-4, atol=1e-4)


def test_the_last_position_of_every_row_stays() -> None:
    gate = torch.ones(2, 5)
    kept, closed = decide(gate, torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]))
    assert kept.tolist() == [[False, False, True, False, False], [False, False, False, False, True]]
    assert closed.tolist() == [[1, 1, 0, 0, 0], [1, 1, 1, 1, 0]]
    assert decide(gate, None)[0].tolist() == [[False] * 4 + [True]] * 2
    assert encoded(gated_model(bias=1000.0), ROWS).positions is not None


def test_shortened_rows_hold_the_kept_positions_in_order() -> None:
    kept = torch.zeros(2, 301, dtype=torch.bool)
    kept[0, [2, 30, 300]] = True
    kept[1, torch.arange(0, 34, 2)] = True
    short = Shortened.of(kept)
    assert short.positions.shape == (2, 24)  # the next multiple of 24, the step for 301 positions
    assert short.positions[0, :3].tolist() == [2, 30, 300]
    assert short.valid.sum(1).tolist() == [3, 17]
    values = torch.arange(602.0).view(2, 301)
    assert short.take(values)[1, :3].tolist() == [301, 303, 305]
    lengths = {Shortened.of(torch.arange(301)[None] < count).positions.shape[1] for count in range(302)}
    assert len(lengths) <= 16


def test_a_row_in_a_batch_is_the_row_alone() -> None:
    model = gated_model()
    whole = logits(model, ROWS)
    for row, segments in enumerate(ROWS):
        torch.testing.assert_close(whole[row], logits(model, [segments])[0], rtol=1e-4, atol=1e-4)


def test_every_decoder_sees_the_kept_states_alone() -> None:
    model = gated_model(bias=-1.0)
    inputs = model.processor(ROWS)
    ids = torch.tensor([[0, 70, 80, 90]]).expand(len(ROWS), -1)
    expected = logits(model, ROWS, torch.tensor([[70, 80, 90, 1]]))
    states, mask = states_and_mask(model.encode(**inputs), inputs["attention_mask"])
    assert mask is not None
    fast = open_decoder(model, states.detach(), mask.detach())
    assert not isinstance(fast, ModuleDecoder)
    for decoder in (fast, ModuleDecoder(model, states, mask)):
        found = torch.cat([decoder.step(ids[:, :2]), decoder.step(ids[:, 2:])], 1)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
        part = decoder.select(1, 3)
        torch.testing.assert_close(part.step(ids[1:3]), expected[1:3], rtol=1e-4, atol=1e-3)


def test_answers_of_the_fast_decoder_are_those_of_transformers() -> None:
    model = gated_model(bias=-1.0)
    ours = model.answer(ROWS, max_new_tokens=9, valid_utf8=False, details=True)
    with torch.no_grad():
        theirs = model.generate(**model.processor(ROWS), max_new_tokens=9, do_sample=False)
        beams = model.generate(**model.processor(ROWS), max_new_tokens=5, num_beams=3, early_stopping=True)
    for answer, row in zip(ours, theirs[:, 1:].tolist(), strict=True):
        assert list(answer.ids) == row[: len(answer.ids)]
    alone = model.answer(ROWS[3], max_new_tokens=9, valid_utf8=False, details=True)  # drafted
    assert alone.ids == ours[3].ids
    found = model.answer(
        ROWS, max_new_tokens=5, num_beams=3, valid_utf8=False, details=True, early_stopping=True
    )
    for answer, row in zip(found, beams[:, 1:].tolist(), strict=True):
        assert list(answer.ids) == row[: len(answer.ids)]


def test_labels_are_scored_over_the_kept_states() -> None:
    model = gated_model(bias=-1.0)
    whole = model.classify(ROWS, ["가", "나다", "x"])
    for row, segments in enumerate(ROWS):
        assert model.classify(segments, ["가", "나다", "x"]) == pytest.approx(whole[row], rel=1e-3)


def test_attention_is_told_at_the_positions_of_the_input() -> None:
    model = gated_model()
    inputs = model.processor(ROWS)
    output = encoded(model, ROWS)
    states, mask = states_and_mask(output, inputs["attention_mask"])
    ids = torch.tensor([[70, 80, 90]]).expand(len(ROWS), -1)
    weights = input_weights(output, mean_cross_attention(model, states, mask, ids))
    assert weights.shape == (len(ROWS), 3, inputs["input_ids"].shape[1])
    torch.testing.assert_close(weights.sum(-1), torch.ones(len(ROWS), 3))
    assert output.gate is not None
    deleted = (output.gate > 0.5) | (inputs["attention_mask"] == 0)
    assert not weights[deleted[:, None].expand_as(weights)].any()
    one = input_weights(output, mean_cross_attention(model, states[2:3], mask[2:3], ids[2:3]), slice(2, 3))
    torch.testing.assert_close(one[0], weights[2])


def test_hard_deletion_in_training_gives_the_gate_a_gradient() -> None:
    model = gated_model()
    assert model.delete_gate is not None
    model.delete_gate.is_hard = True
    model.train()
    inputs = model.processor(ROWS)
    output = model(**inputs, labels=LABELS.expand(len(ROWS), -1), use_cache=False)
    output.loss.backward()
    assert model.delete_gate.weight.grad is not None
    assert model.delete_gate.weight.grad.abs().sum() > 0
    hard = output.logits.detach()
    model.eval()
    torch.testing.assert_close(hard, logits(model, ROWS), rtol=1e-4, atol=1e-4)


def test_the_values_of_a_gate_teach_its_own_weights_alone() -> None:
    model = gated_model()
    model.train()
    output = model.encode(**model.processor(ROWS))
    assert isinstance(output, GatedStates)
    assert output.gate is not None
    output.gate.sum().backward()
    taught = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert taught == {"delete_gate.norm", "delete_gate.weight", "delete_gate.bias"}


def test_saved_and_loaded_it_gives_the_same_logits(tmp_path: Path) -> None:
    model = gated_model()
    model.save_pretrained(tmp_path)
    loaded = CrossModalT5.from_pretrained(tmp_path)
    assert loaded.config.delete_gate == GATE
    assert logits(loaded, ROWS).equal(logits(model, ROWS))


def test_a_layer_without_one_after_it_is_refused(tmp_path: Path) -> None:
    model = gated_model()
    model.config.delete_gate = {"layer": 3}
    model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="from 1 to below num_layers, 3"):
        CrossModalT5.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"layer": 0}, "layer is 0"), ({"rate": 1.0}, "rate is 1.0"), ({"hard_from": -1}, "hard_from is -1")],
)
def test_values_outside_their_range_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DeleteGate(**fields)


def test_states_of_a_model_without_a_gate_keep_the_mask() -> None:
    mask = torch.tensor([[1.0, 0.0]])
    states, found = states_and_mask(BaseModelOutput(torch.zeros(1, 2, 3)), mask)  # pyright: ignore
    assert states.shape == (1, 2, 3)
    assert found is not None
    assert found.tolist() == [[True, False]]
