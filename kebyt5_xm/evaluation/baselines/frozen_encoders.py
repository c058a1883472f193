"""Which encoders a linear probe may use: those whose features training has not changed."""

from collections.abc import Callable, Iterable, Mapping

import torch

from kebyt5_xm.encoder import Encoder
from kebyt5_xm.evaluation.baselines.media_features import FeatureMaker, FrozenFeatures, Raw
from kebyt5_xm.model.cross_modal import CrossModalT5

MakeEncoder = Callable[[], Encoder]
"""Builds an encoder as a recipe describes it."""


def feature_makers(
    model: CrossModalT5, names: Iterable[str], initial: Mapping[str, MakeEncoder]
) -> dict[str, FeatureMaker]:
    """Return modality -> what makes its vectors, for these modalities of a model.

    - A frozen encoder, and one without weights: its own features.
    - A pretrained encoder that was trained further: the features it had at the start, if `initial` builds it.
    - One trained from scratch: pixels, log-mel frames, or the array itself. They say more than random weights do.
    """
    return {name: _maker(model, name, initial.get(name)) for name in names}


def _maker(model: CrossModalT5, name: str, make: MakeEncoder | None) -> FeatureMaker:
    module = model.modality(name)
    encoder = module.encoder
    is_as_built = encoder.keeps_initial_weights and not module.encoder_changed
    if is_as_built or not any(True for _ in encoder.parameters()):
        return FrozenFeatures(encoder)
    found = pretrained(make) if make is not None else None
    return Raw(encoder.media) if found is None else FrozenFeatures(found.to(model.device))


def pretrained(make: MakeEncoder) -> Encoder | None:
    """Return the encoder with its pretrained weights; None if chance decides some of them.

    It is built twice with other seeds. What differs was not read from a file.
    """
    with torch.random.fork_rng(devices=[]):
        built = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            built.append(make())
    first, second = (encoder.state_dict() for encoder in built)
    if all(torch.equal(tensor, second[key]) for key, tensor in first.items()):
        return built[0].freeze()
    return None
