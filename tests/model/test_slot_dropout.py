"""Dropout of slots and media: what is replaced, when, and that the rest stays as it is."""

import signal
from pathlib import Path
from typing import Any

import pytest
import tiny_media
import tiny_run
import torch
from tiny_model import SPECS, picture, tiny_model
from tiny_run import fit_to_log, train_losses

from kebyt5_xm.errors import UserError
from kebyt5_xm.model.runs.run import Run
from kebyt5_xm.model.slot_dropout import SlotDropout
from kebyt5_xm.training.recipes import overlay


def test_vectors_are_zeros_or_unchanged_at_the_given_rates() -> None:
    torch.manual_seed(5)
    vectors = torch.randn(997, 11, 3) + 5
    found = SlotDropout(slots=0.2, media=0.1)(vectors)
    zero = (found == 0).all(-1)
    assert found[~zero].equal(vectors[~zero])
    empty = zero.all(1)
    assert float(empty.float().mean()) == pytest.approx(0.1, abs=0.03)
    assert float(zero[~empty].float().mean()) == pytest.approx(0.2, abs=0.02)


def test_a_medium_is_dropped_whole() -> None:
    torch.manual_seed(5)
    zero = SlotDropout(media=0.3)(torch.ones(101, 7, 2))[..., 0] == 0
    assert zero.any()
    assert (zero.all(1) | ~zero.any(1)).all()


def test_the_rates_change_no_other_mask() -> None:
    masks = []
    for dropout in (SlotDropout(slots=0.3), SlotDropout(slots=0.3, media=0.4)):
        torch.manual_seed(5)
        masks.append(dropout(torch.ones(31, 7, 1))[..., 0])
    kept = masks[1].any(1)
    assert masks[1][kept].equal(masks[0][kept])


@pytest.mark.parametrize(
    ("dropout", "message"),
    [
        (SlotDropout(slots=1.0), r"there\.slots is 1; expected a probability"),
        (SlotDropout(media=-0.1), r"there\.media is -0.1"),
        (SlotDropout(), "there drops nothing; give slots or media"),
    ],
)
def test_values_without_effect_are_refused(dropout: SlotDropout, message: str) -> None:
    with pytest.raises(UserError, match=message):
        dropout.check("there")


def test_it_acts_in_training_mode_alone_and_reaches_all_weights() -> None:
    model = tiny_model({"image": SPECS["image"]})
    encoded = dict(model.processor([["a", picture(1), "b", picture(2)]]))

    def states() -> torch.Tensor:
        torch.manual_seed(3)
        return model.encode(**encoded)[0]

    plain = states()
    module = model.modality("image")
    module.dropout = SlotDropout(slots=0.5)
    assert states().equal(plain)
    module.train()
    dropped = states()
    assert not dropped.equal(plain)
    assert dropped.shape == plain.shape
    dropped.sum().backward()
    gradients = [parameter.grad for parameter in module.adapter.parameters()]
    assert all(gradient is not None for gradient in gradients)
    module.dropout = SlotDropout(media=0.999999)
    model.zero_grad(set_to_none=True)
    states().sum().backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in module.parameters())
    assert float(model.scale_ratios["image"]) > 0, "logged before the dropout"


def recipe(folder: Path, name: str, dropout: dict | None, **trainer: Any) -> dict[str, Any]:
    contents = overlay(tiny_run.resumable_recipe(folder, name, **trainer), tiny_media.image_overlay(folder))
    contents["model"]["modalities"]["image"]["dropout"] = dropout
    return contents


@pytest.mark.slow
def test_a_run_with_it_is_killed_and_continued_bit_identically(tmp_path: Path) -> None:
    tiny_run.write_stores(tmp_path)
    tiny_media.write_media(tmp_path)
    dropout = {"slots": 0.3, "media": 0.2}
    for name, given in (("whole", dropout), ("plain", None)):
        assert fit_to_log(tmp_path, recipe(tmp_path, name, given)) == [0], (tmp_path / "log").read_text()[
            -3000:
        ]
    kill = {"class_path": "killing.KillAfter", "init_args": {"micro_batch": 17}}
    assert fit_to_log(tmp_path, recipe(tmp_path, "killed", dropout, callbacks=[kill])) == [-signal.SIGKILL]
    assert fit_to_log(tmp_path, recipe(tmp_path, "killed", dropout), "--ckpt_path", "last") == [0]
    whole, plain = train_losses(tmp_path / "whole"), train_losses(tmp_path / "plain")
    assert train_losses(tmp_path / "killed") == whole
    assert whole != plain
    tensors = [tiny_run.tensors(Run(tmp_path / name).last) for name in ("killed", "whole")]
    assert all(tensors[0][key].equal(value) for key, value in tensors[1].items())
    code = fit_to_log(tmp_path, recipe(tmp_path, "two", dropout, strategy="ddp", devices=2), ranks=2)
    assert code == [0, 0], (tmp_path / "log").read_text()[-3000:]
