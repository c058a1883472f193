"""In bf16, T5 keeps fp32 where it needs it: norms, the residual stream of bf16-mixed, and the loss."""

import torch
from torch import nn

from kebyt5_xm.data.inputs import Inputs
from kebyt5_xm.model.backbone import Backbone
from kebyt5_xm.model.configuration import CrossModalT5Config
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.fused_blocks import RMSNorm
from kebyt5_xm.model.network import teacher_force, token_losses

SHAPE = {"d_model": 26, "d_kv": 6, "d_ff": 34, "num_heads": 3, "num_layers": 2, "num_decoder_layers": 2}
B, S, T = 2, 11, 7


def dtypes(model: CrossModalT5, mixed: bool) -> dict[str, set[torch.dtype]]:
    """Return the dtypes of the outputs of norms, matrices, blocks, the losses, and the gradients."""
    found: dict[str, set[torch.dtype]] = {}

    def note(kind: str, tensor: torch.Tensor) -> None:
        found.setdefault(kind, set()).add(tensor.dtype)

    for name, module in model.named_modules():
        if isinstance(module, RMSNorm):
            module.register_forward_hook(lambda *args: note("norm", args[-1]))
        elif isinstance(module, nn.Linear):
            module.register_forward_hook(lambda *args: note("matrix", args[-1]))
        elif name.rpartition(".")[0].endswith(".block"):
            module.register_forward_hook(lambda *args: note("residual", args[-1][0]))
    labels = torch.randint(3, 259, (B, T))
    inputs = Inputs(torch.randint(3, 259, (B, S)), torch.tensor([S, S - 4]))
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        losses = token_losses(teacher_force(model, inputs, labels).logits, labels)
    note("losses", losses)
    losses.sum().backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        note("gradient", parameter.grad)
    return found


def make_model() -> CrossModalT5:
    t5 = Backbone(shape=SHAPE).build()
    return CrossModalT5(CrossModalT5Config(t5.config.to_dict()), t5, {}).train()


def test_mixed_precision_computes_products_alone_in_bf16() -> None:
    bf16, fp32 = {torch.bfloat16}, {torch.float32}
    assert dtypes(make_model(), mixed=True) == {
        "norm": fp32,
        "matrix": bf16,
        "residual": fp32,
        "losses": fp32,
        "gradient": fp32,
    }


def test_true_bf16_computes_norms_and_losses_in_fp32() -> None:
    model = make_model().to(torch.bfloat16)  # pyright: ignore[reportArgumentType]
    found = dtypes(model, mixed=False)
    assert found.pop("losses") == {torch.float32}
    assert set().union(*found.values()) == {torch.bfloat16}

    norm = model.backbone.encoder.final_layer_norm
    states = (torch.randn(5, 26) * 300).to(torch.bfloat16)
    in_fp32 = states.float() * states.float().square().mean(-1, keepdim=True).rsqrt()
    torch.testing.assert_close(norm(states).float(), in_fp32, rtol=2**-7, atol=1e-6)
