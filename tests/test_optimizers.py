"""RMS-scaled AdamW: computed by hand, compared with torch's AdamW, and resumed."""

import io

import pytest
import torch
from torch import nn

from kebyt5_xm.errors import UserError
from kebyt5_xm.optimizers import RMSScaledAdamW, is_elementwise


def test_first_step_by_hand():
    matrix = nn.Parameter(torch.tensor([[3.0, -4.0], [0.0, 5.0]]))  # rms sqrt(50 / 4)
    zeros = nn.Parameter(torch.zeros(3))  # rms below the smallest scale
    no_gradient = nn.Parameter(torch.ones(2))
    optimizer = RMSScaledAdamW([matrix, zeros, no_gradient], lr=0.1, eps=0.0, weight_decay=0.5)
    matrix.grad = torch.tensor([[7.0, -2.0], [0.001, 1.0]])
    zeros.grad = torch.tensor([1.0, -1.0, 2.0])
    optimizer.step()
    # With eps 0, Adam's first update is the sign of the gradient.
    change = 0.1 * 12.5**0.5
    decayed = 1 - 0.1 * 0.5
    torch.testing.assert_close(
        matrix.detach(),
        torch.tensor([[3 * decayed - change, -4 * decayed + change], [-change, 5 * decayed - change]]),
    )
    torch.testing.assert_close(zeros.detach(), torch.tensor([-1e-4, 1e-4, -1e-4]))
    assert torch.equal(no_gradient.detach(), torch.ones(2))
    assert len(optimizer.state[no_gradient]) == 0


def test_is_adamw_times_the_rms():
    """Each step equals torch's AdamW from the same point with the learning rate times that tensor's RMS."""
    torch.manual_seed(0)
    shapes_and_scales = [((7, 3), 2.0), ((11,), 0.05), ((2, 5, 3), 1e-6)]
    ours = [nn.Parameter(torch.randn(shape) * scale) for shape, scale in shapes_and_scales]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    settings = {"betas": (0.8, 0.95), "eps": 1e-6}
    optimizer = RMSScaledAdamW(ours, lr=0.01, weight_decay=0.1, **settings)
    reference = torch.optim.AdamW([{"params": [p]} for p in theirs], **settings)
    for step in range(5):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = q.grad = torch.randn_like(p)
        if step == 2:  # a tensor that misses a step keeps its own step count
            ours[0].grad = theirs[0].grad = None
        for group, q in zip(reference.param_groups, theirs, strict=True):
            scale = max(q.detach().square().mean().sqrt().item(), 1e-3)
            group["lr"] = 0.01 * scale
            group["weight_decay"] = 0.1 / scale  # the decay itself is not scaled
        optimizer.step()
        reference.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-9)


def test_equals_adamw_where_the_rms_is_one():
    start = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0])
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    ours.grad = theirs.grad = torch.tensor([0.3, -2.0, 5.0, 0.0, 1e-4])
    RMSScaledAdamW([ours], lr=0.01, weight_decay=0.1).step()
    torch.optim.AdamW([theirs], lr=0.01, weight_decay=0.1).step()
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)


def test_resumed_equals_uninterrupted():
    def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            optimizer.zero_grad()
            inputs = torch.randn(5, 7, generator=torch.Generator().manual_seed(step))
            model(inputs).square().mean().backward()
            optimizer.step()

    def fresh() -> tuple[nn.Module, RMSScaledAdamW]:
        torch.manual_seed(1)
        model = nn.Linear(7, 3)
        return model, RMSScaledAdamW(model.parameters(), lr=0.02, weight_decay=0.01)

    model, optimizer = fresh()
    train(model, optimizer, range(3))
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    train(model, optimizer, range(3, 8))

    resumed, resumed_optimizer = fresh()
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed.load_state_dict(saved["model"])
    resumed_optimizer.load_state_dict(saved["optimizer"])
    train(resumed, resumed_optimizer, range(3, 8))
    for p, q in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(p, q)


def test_half_precision_parameters_and_the_closure():
    p = nn.Parameter(torch.full((3,), 4.0, dtype=torch.bfloat16))
    optimizer = RMSScaledAdamW([p], lr=0.25)

    def closure() -> float:
        assert torch.is_grad_enabled()
        p.grad = torch.ones_like(p)
        return 17.0

    assert optimizer.step(closure) == 17.0
    assert p.dtype == torch.bfloat16
    assert torch.equal(p.detach(), torch.full((3,), 3.0, dtype=torch.bfloat16))


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"lr": -1.0}, "lr=-1.0"), ({"betas": (0.9, 1.0)}, "betas"), ({"weight_decay": float("nan")}, "nan")],
)
def test_values_outside_their_range(settings: dict, named: str):
    with pytest.raises(UserError, match=named):
        RMSScaledAdamW([nn.Parameter(torch.ones(1))], **settings)


def test_which_optimizers_are_elementwise():
    params = [nn.Parameter(torch.ones(2, 3))]
    assert is_elementwise(torch.optim.AdamW(params))
    assert not is_elementwise(RMSScaledAdamW(params))
    assert not is_elementwise(torch.optim.Adafactor(params))
