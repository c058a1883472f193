"""Label smoothing: its distribution, where it acts, and that 0 changes nothing."""

from pathlib import Path

import pytest
import tiny_run
import torch
from tiny_run import fit_to_log, train_losses

from kebyt5_xm.data.batch import IGNORE_INDEX
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.network import token_losses
from kebyt5_xm.model.runs.run import Run
from kebyt5_xm.training.smoothing import check_smoothing, smooth
from kebyt5_xm.vocabulary import EOS_ID, VOCAB_SIZE

SMOOTHING = 0.17
ANSWER_IDS = [EOS_ID, *range(3, 259)]


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    logits = torch.randn(2, 5, VOCAB_SIZE, generator=torch.Generator().manual_seed(7)) * 3
    labels = torch.tensor([[70, 258, EOS_ID, IGNORE_INDEX, IGNORE_INDEX], [3, 300, 40, 41, EOS_ID]])
    return logits.requires_grad_(), labels


def test_it_is_the_cross_entropy_with_smoothed_labels() -> None:
    logits, labels = batch()
    found = smooth(token_losses(logits, labels), logits, labels, SMOOTHING)
    target = torch.zeros(2, 5, VOCAB_SIZE)
    target[..., ANSWER_IDS] = SMOOTHING / len(ANSWER_IDS)
    target.scatter_add_(-1, labels.clamp_min(0)[..., None], torch.full((2, 5, 1), 1 - SMOOTHING))
    expected = -(target * logits.log_softmax(-1)).sum(-1) * (labels != IGNORE_INDEX)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(loss.sum(), logits)[0] for loss in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_padding_stays_zero_beside_logits_that_are_not_finite() -> None:
    logits, labels = batch()
    with torch.no_grad():
        logits[0, 3] = torch.nan
    found = smooth(token_losses(logits, labels), logits, labels, SMOOTHING)
    assert found[0, 3:].tolist() == [0, 0]
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("value", [-0.1, 0.6, float("nan")])
def test_a_share_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(UserError, match=r"model\.label_smoothing is .*; expected 0 to 0\.5"):
        check_smoothing(value)


@pytest.mark.slow
def test_logged_losses_and_validations_are_not_smoothed(tmp_path: Path) -> None:
    """The first step's and a frozen model's losses are those of a run without smoothing."""
    tiny_run.write_stores(tmp_path)
    runs = {}
    for name, smoothing in (("plain", 0.0), ("smoothed", 0.3)):
        contents = tiny_run.recipe(tmp_path, name, max_steps=3)
        contents["model"]["label_smoothing"] = smoothing
        contents["forgetting"] = {"from_scratch": True}
        assert fit_to_log(tmp_path, contents) == [0], (tmp_path / "log").read_text()[-3000:]
        rows = Run(tmp_path / name).metrics()
        validated = {r["metric"]: r["value"] for r in rows if r["step"] == 0 and "val/" in r["metric"]}
        runs[name] = train_losses(tmp_path / name), validated
    (plain, plain_validated), (found, validated) = runs["plain"], runs["smoothed"]
    assert {key: value for key, value in found.items() if key[0] == 1} == {
        key: value for key, value in plain.items() if key[0] == 1
    }
    assert validated == plain_validated
    assert found[3, "train/loss"] != plain[3, "train/loss"], "but it trains otherwise"
