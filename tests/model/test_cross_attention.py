"""Where the decoder looks: the same weights as those of transformers' own attention."""

import pytest
import torch
from test_decoding_int8 import int8
from tiny_model import LABELS, ROWS, tiny_model

from kebyt5_xm.errors import UserError
from kebyt5_xm.model import cross_attention as module
from kebyt5_xm.model.cross_attention import cross_attention, mean_cross_attention

IDS = torch.tensor([[70, 80, 90, 1, 0], [71, 81, 91, 101, 1]])


def test_the_weights_are_those_of_eager_attention() -> None:
    model = tiny_model()
    inputs = model.processor(ROWS[:2])
    states = model.encode(**inputs).last_hidden_state
    assert states is not None
    found = cross_attention(model, states, inputs["attention_mask"], IDS)
    model.backbone.set_attn_implementation("eager")
    eager = model.backbone(
        attention_mask=inputs["attention_mask"],
        encoder_outputs=(states,),
        decoder_input_ids=model.shift_right(IDS),
        output_attentions=True,
    )
    expected = torch.stack(eager.cross_attentions, dim=1)
    assert found.shape == (2, 2, 3, 5, states.shape[1])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not found.masked_select(~inputs["attention_mask"].bool()[:, None, None, None]).any()


def test_the_mean_is_that_over_layers_and_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    inputs = model.processor(ROWS[:2])
    states = model.encode(**inputs).last_hidden_state
    assert states is not None
    expected = cross_attention(model, states, inputs["attention_mask"], IDS).mean((1, 2))
    monkeypatch.setattr(module, "IDS_AT_ONCE", 2)
    torch.testing.assert_close(mean_cross_attention(model, states, inputs["attention_mask"], IDS), expected)


def test_an_int8_decoder_is_refused() -> None:
    model = int8(tiny_model())
    states = torch.zeros(1, 7, 29)
    with pytest.raises(UserError, match="found a model in int8, expected fp32 or bf16"):
        cross_attention(model, states, None, LABELS)
