"""An int8 decoder: the bytes of fp32 for nearly all of a trained model's answers, and what it refuses."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_model import ROWS, tiny_model

from kebyt5_xm.errors import UserError
from kebyt5_xm.model import saved_model
from kebyt5_xm.model.backbone import Backbone, backbone_hash
from kebyt5_xm.model.configuration import CrossModalT5Config
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.decoding import open_decoder
from kebyt5_xm.model.decoding.int8 import Int8Matrix, quantize_decoder
from kebyt5_xm.model.t5 import saved_config
from kebyt5_xm.vocabulary import EOS_ID, encode

SHAPE = {"d_model": 64, "d_ff": 96, "num_heads": 2, "num_layers": 2, "num_decoder_layers": 2, "d_kv": 32}
PAIRS = [(f"{a} {b}", f"{b}은 {a} 다음") for a in ("하나", "two", "三") for b in ("red", "푸른", "白い")]


@pytest.fixture(scope="module")
def trained() -> CrossModalT5:
    """A model that has learned its answers to the inputs of PAIRS."""
    torch.manual_seed(0)
    backbone = Backbone(shape=SHAPE).build()
    model = CrossModalT5(CrossModalT5Config(saved_config(backbone.config)), backbone, {})
    targets = [torch.tensor([*encode(target).tolist(), EOS_ID]) for _, target in PAIRS]
    labels = torch.nn.utils.rnn.pad_sequence(targets, batch_first=True, padding_value=-100)
    inputs = model.processor([[text] for text, _ in PAIRS])
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(120):
        loss = model(**inputs, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05
    return model.eval()


def int8(model: CrossModalT5) -> CrossModalT5:
    quantized = copy.deepcopy(model)
    quantize_decoder(quantized)
    return quantized


def test_a_trained_model_answers_as_in_fp32(trained: CrossModalT5) -> None:
    texts = [[text] for text, _ in PAIRS]
    quantized = int8(trained)
    assert trained.answer(texts) == [target for _, target in PAIRS]
    pairs = zip(quantized.answer(texts), trained.answer(texts), strict=True)
    bytes_of = [(found.encode(), expected.encode()) for found, expected in pairs]
    same = sum(a == b for found, expected in bytes_of for a, b in zip(found, expected, strict=False))
    assert same >= 0.99 * sum(len(expected) for _, expected in bytes_of)
    labels = [target for _, target in PAIRS]
    assert quantized.answer(texts, labels=labels) == labels
    assert quantized.answer(texts[0], num_beams=3) == labels[0]


def test_the_error_of_the_logits_is_bounded(trained: CrossModalT5) -> None:
    states, mask = torch.randn(3, 11, SHAPE["d_model"]), torch.ones(3, 11)
    ids = torch.randint(3, 259, (3, 17), generator=torch.Generator().manual_seed(1))
    exact = open_decoder(trained, states, mask).step(ids)
    error = open_decoder(int8(trained), states, mask).step(ids) - exact
    assert 0 < error.std() < 0.1 * exact.std()  # 7 bits of inputs and 8 of weights


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e6])
def test_a_product_is_exact_to_8_bits_for_each_output(scale: float) -> None:
    torch.manual_seed(1)
    weight = torch.randn(13, 67) * torch.logspace(-3, 3, 13)[:, None] * scale
    x = torch.randn(1, 67)
    found = torch.empty(1, 13)
    Int8Matrix([weight[:5], weight[5:]]).multiply(x, found)
    expected = x @ weight.T
    # Of inputs an eighth of a percent of their range of 6, of weights of theirs; 67 products.
    assert ((found - expected).abs() <= 0.05 * weight.norm(dim=1) * 2 + 1e-20).all()
    total = torch.ones(1, 13)
    Int8Matrix([weight]).add_product(x, total)
    torch.testing.assert_close(total, 1 + found)


def test_sums_do_not_overflow() -> None:
    """x86 adds pairs of products in 16 bits: two of 255 x 127 would be cut to 32,767."""
    found = torch.empty(1, 3)
    Int8Matrix([torch.ones(3, 64)]).multiply(torch.tensor([[-0.01, *[4.0] * 63]]), found)
    assert found.tolist() == [pytest.approx([252.0] * 3, rel=0.02)]


def test_training_saving_and_moving_are_refused_by_name(trained: CrossModalT5, tmp_path: Path) -> None:
    model = int8(trained)
    assert model.eval() is model
    assert model.to("cpu") is model
    inputs: dict[str, Any] = model.processor([["x"]])
    for refused, message in (
        (lambda: model.train(), "cannot be trained; train the model"),
        (
            lambda: model(**inputs, labels=torch.tensor([[70]])),
            "an int8 decoder by transformers or a training step",
        ),
        (
            lambda: model.answer([["x"]], repetition_penalty=2.0),
            "expected answer.. or classify.. with arguments",
        ),
        (lambda: model.state_dict(), "cannot be saved or exported; load the model with dtype='float32'"),
        (lambda: model.save_pretrained(tmp_path / "a"), "cannot be saved or exported"),
        (lambda: backbone_hash(model.backbone), "cannot be saved or exported"),
        (lambda: model.load_state_dict({}), "cannot be given other weights"),
        (lambda: int8(trained).to(torch.bfloat16), "cannot be moved to cpu as torch.bfloat16"),
        (lambda: int8(trained).to("meta"), "cannot be moved to meta"),
        (lambda: quantize_decoder(model), "expected a plain T5 decoder"),
        (
            lambda: quantize_decoder(tiny_model().to("meta")),
            "found a model on 'meta', expected one on the CPU",
        ),
    ):
        with pytest.raises(UserError, match=message):
            refused()
    assert not (tmp_path / "a" / "model.safetensors").exists()


def test_int8_is_a_dtype_of_from_pretrained(tmp_path: Path, monkeypatch) -> None:
    tiny_model().to(torch.bfloat16).save_pretrained(tmp_path)
    expected = int8(tiny_model().to(torch.bfloat16)).answer(ROWS, max_new_tokens=7)
    for dtype in ("int8", torch.int8):
        model = CrossModalT5.from_pretrained(tmp_path, dtype=dtype, device_map="cpu")
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert not list(model.backbone.decoder.parameters())
        assert model.answer(ROWS, max_new_tokens=7) == expected
    monkeypatch.setattr(saved_model, "parse_device_map", torch.device)
    with pytest.raises(UserError, match="found dtype int8 for 'cuda:1', expected a CPU"):
        CrossModalT5.from_pretrained(tmp_path, dtype="int8", device_map="cuda:1")
