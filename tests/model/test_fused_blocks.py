"""The T5 with cheaper norms and activations has the weights, the names and the results of transformers' own."""

import pytest
import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5LayerNorm

from kebyt5_xm.model.backbone import Backbone, backbone_hash
from kebyt5_xm.model.fused_blocks import RMSNorm
from kebyt5_xm.model.network import token_losses
from kebyt5_xm.model.t5 import t5_config

SHAPE = {"d_model": 26, "d_kv": 6, "d_ff": 34, "num_heads": 3, "num_layers": 2, "num_decoder_layers": 2}
B, S, T = 2, 11, 7


def models() -> tuple[T5ForConditionalGeneration, T5ForConditionalGeneration]:
    """Return our T5 and transformers' own with the same weights."""
    torch.manual_seed(0)
    ours = Backbone(shape=SHAPE).build()
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
    theirs = T5ForConditionalGeneration(t5_config(ours.config.to_dict()))
    theirs.set_input_embeddings(theirs.shared)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs.train(ours.training)


def gradients(model: T5ForConditionalGeneration, autocast: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the logits and the gradient of every parameter."""
    generator = torch.Generator().manual_seed(1)
    ids, labels = (torch.randint(3, 259, shape, generator=generator) for shape in ((B, S), (B, T)))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        output = model(input_ids=ids, attention_mask=mask, labels=labels)
    output.loss.backward()
    return output.logits.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("autocast", "tolerance"), [(False, 2e-5), (True, 0.05)])
def test_outputs_and_gradients_are_those_of_transformers(autocast: bool, tolerance: float) -> None:
    """In fp32 the order of sums differs; in bf16 transformers keeps the product with the gate in fp32."""
    ours, theirs = models()
    (logits, found), (expected_logits, expected) = gradients(ours, autocast), gradients(theirs, autocast)
    assert logits.dtype == expected_logits.dtype
    torch.testing.assert_close(logits, expected_logits, rtol=tolerance, atol=tolerance)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        distance = (found[name] - gradient).norm() / gradient.norm()
        assert distance < tolerance, name


def test_outputs_in_half_precision_are_those_of_transformers() -> None:
    ours, theirs = (model.to(torch.bfloat16) for model in models())
    (logits, _), (expected, _) = gradients(ours, False), gradients(theirs, False)
    torch.testing.assert_close(logits, expected, rtol=0.05, atol=0.05)


def test_the_state_is_that_of_transformers() -> None:
    ours, theirs = models()
    assert isinstance(ours, T5ForConditionalGeneration)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert backbone_hash(ours) == backbone_hash(theirs)
    assert not any(type(module) is T5LayerNorm for module in ours.modules())


@pytest.mark.parametrize("frozen", ["", "input", "weight"])
def test_the_norm_on_a_cpu_has_the_right_gradient(frozen: str) -> None:
    torch.manual_seed(0)
    norm = RMSNorm(T5LayerNorm(13)).double()
    weight = torch.rand(13, dtype=torch.float64) + 0.5
    states = torch.randn(2, 11, 13, dtype=torch.float64) * 3

    def normalise(states: Tensor, weight: Tensor) -> Tensor:
        return torch.func.functional_call(norm, {"weight": weight}, states)

    states.requires_grad_(frozen != "input")
    weight.requires_grad_(frozen != "weight")
    assert torch.autograd.gradcheck(normalise, (states, weight))


@pytest.mark.parametrize(
    ("states", "weight"), [(torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32)]
)
def test_a_norm_of_mixed_dtypes_is_that_of_transformers(states: torch.dtype, weight: torch.dtype) -> None:
    norm = T5LayerNorm(13).to(weight)
    x = torch.randn(5, 13).to(states)
    found, expected = RMSNorm(norm)(x), norm(x)
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)


def test_losses_are_those_of_transformers_and_zero_without_a_target() -> None:
    ours, _ = models()
    labels = torch.randint(3, 259, (B, T))
    labels[1, 2:] = -100
    output = ours(input_ids=torch.randint(3, 259, (B, S)), labels=labels)
    losses = token_losses(output.logits, labels)
    assert losses.shape == (B, T)
    assert not losses[1, 2:].any()
    torch.testing.assert_close(losses.sum() / (labels != -100).sum(), output.loss)
