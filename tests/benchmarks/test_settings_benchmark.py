"""The measurement of settings: variants differ from `plain` in what they name alone, and what is gathered."""

import json
from pathlib import Path

import pytest

from benchmarks import settings
from kebyt5_xm.training import recipes


def test_a_variant_is_plain_with_one_setting_more():
    variants = settings.TABLES["digits"].variants
    plain = variants["plain"]
    assert plain == {"data": {"sources": {"digits": {"init_args": {"augment": None}}}}}
    assert variants["augmented"] == {}
    for name, overlay in variants.items():
        if name not in ("plain", "augmented"):
            assert overlay["data"] == plain["data"], name
            assert len(overlay) == 2, name  # its setting, beside the data's
    assert len({json.dumps(overlay) for overlay in variants.values()}) == len(variants)


def test_every_variant_names_keys_of_the_recipe():
    text = recipes.merge([str(settings.RECIPES / "text.yaml")])
    for name, overlay in settings.TABLES["text"].variants.items():
        assert overlay["model"].keys() <= text["model"].keys(), name
        assert overlay["model"]["backbone"].keys() <= text["model"]["backbone"].keys(), name


def test_figures_have_mean_deviation_and_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(settings, "FOLDER", tmp_path)
    for name, figure in {"digits-plain-0": 0.8, "digits-plain-1": 0.9, "digits-ema-0": 0.7}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / settings.RESULT).write_text(json.dumps(figure))
    (tmp_path / "text-0.5M_adamw_1e-3-0").mkdir()  # has not ended
    assert settings.collect() == {
        "digits": {
            "plain": {
                "exact_match": pytest.approx(0.85),
                "deviation": pytest.approx(0.0707, abs=1e-4),
                "seeds": 2,
            },
            "ema": {"exact_match": 0.7, "seeds": 1},
        }
    }
