"""Optimizer groups: the last match wins, and a pattern without effect is refused."""

import pytest
import torch

from kebyt5_xm.errors import UserError
from kebyt5_xm.training.groups import Group, assign, format_table, make_optimizer_groups

PARAMETERS = [
    ("backbone.shared.weight", True),
    ("backbone.encoder.norm.weight", True),
    ("backbone.decoder.norm.weight", True),
    ("modalities.image.encoder.weight", False),
]


def test_the_last_match_wins_and_the_rest_is_default() -> None:
    groups = {"encoder": Group("backbone.encoder.*", lr=1.0), "norms": Group("*norm*", lr=2.0)}
    assert assign(groups, PARAMETERS) == {
        "default": ["backbone.shared.weight"],
        "norms": ["backbone.encoder.norm.weight", "backbone.decoder.norm.weight"],
    }


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("backbone.encodr.*", r"encodr.*matches no parameter; did you mean 'backbone\.encoder'"),
        ("modalities.image.encoder.*", "only frozen parameters"),
    ],
)
def test_patterns_without_effect_are_refused(pattern: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        assign({"g": Group(pattern)}, PARAMETERS)


def test_a_group_overrides_only_its_options() -> None:
    named = [
        ("a.weight", torch.nn.Parameter(torch.zeros(3))),
        ("b.weight", torch.nn.Parameter(torch.zeros(5, 7))),
    ]
    entries = make_optimizer_groups({"b": Group("b.*", lr=0.25)}, named)
    optimizer = torch.optim.AdamW(entries, lr=0.5, weight_decay=0.125)
    assert [(g["name"], g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [
        ("default", 0.5, 0.125),
        ("b", 0.25, 0.125),
    ]
    printed = format_table(optimizer.param_groups, num_frozen=11).splitlines()
    assert printed[2].split() == ["b", "1", "35", "0.25", "0.125"]
    assert printed[-2].split() == ["(frozen)", "11"]
    assert printed[-1] == "77.55% of 49 train"
