"""The contract tests themselves: each one fails for an encoder that breaks its promise."""

import importlib
import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from kebyt5_xm import adapters
from kebyt5_xm.contract import AdapterContract, EncoderContract
from kebyt5_xm.encoder import AudioHeader, Encoded, Encoder, ImageHeader, Preprocessor, header_of, length_mask
from kebyt5_xm.errors import UserError


@dataclass
class Frames(Preprocessor):
    frame: int = 7
    pads: bool = True
    wrong_by: int = 0
    noise: float = 0.0

    def size(self, header):
        return (-(-header.num_samples // self.frame) + self.wrong_by,)

    def prepare(self, item):
        samples = torch.tensor(item[0])
        padded = nn.functional.pad(samples, (0, -len(samples) % self.frame)).unflatten(0, (-1, self.frame))
        return padded + self.noise * torch.rand(())


class Good(Encoder):
    media = "audio"
    preparing = Frames()

    def __init__(self):
        super().__init__()
        self.out_dim = 5
        self.net = nn.Sequential(nn.Linear(7, 5), nn.Dropout(0.5), nn.Tanh())

    def preprocessor(self):
        return self.preparing

    def forward(self, prepared, lengths):
        return Encoded(self.net(prepared), length_mask(lengths, prepared.shape[1]))

    def dummy(self):
        return torch.zeros(1, 1, 7), torch.tensor([1])


class ReportsAWrongSize(Good):
    preparing = Frames(wrong_by=1)


class PreparesAtRandom(Good):
    preparing = Frames(noise=0.1)


class HoldsWeights(Good):
    def __init__(self):
        super().__init__()
        self.preparing = replace(Frames())
        self.preparing.table = torch.zeros(1 << 19)


class MixesTheBatch(Good):
    def forward(self, prepared, lengths):
        return super().forward(prepared + prepared.mean(0), lengths)


class LeaksPadding(Good):
    def forward(self, prepared, lengths):
        return super().forward(prepared - prepared.mean(1, keepdim=True), lengths)


class ForgetsTheMask(Good):
    def forward(self, prepared, lengths):
        return Encoded.full(self.net(prepared))


class KeepsADeadParameter(Good):
    def __init__(self):
        super().__init__()
        self.dead = nn.Parameter(torch.ones(3))


class MovesStatistics(Good):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, prepared, lengths):
        if self.training:
            self.seen += 1
        return super().forward(prepared, lengths)


class TrainsWhenFrozen(Good):
    def train(self, mode=True):
        return nn.Module.train(self, mode)


class HasNoDummy(Good):
    def dummy(self):
        return torch.zeros(1, 3, 7), torch.tensor([0])


class UsesNoContent(Good):
    def forward(self, prepared, lengths):
        return super().forward(prepared * 0, lengths)


class StaysInFp32(Good):
    def forward(self, prepared, lengths):
        encoded = super().forward(prepared, lengths)
        return replace(encoded, features=encoded.features.float())


class RandomEachTime(Good):
    def __init__(self):
        super().__init__()
        self.preparing = Frames(frame=7)
        self.preparing.made = object()  # its repr differs in every process


class FrameContract(EncoderContract):
    def __init__(self, cls):
        self.make = cls

    def make(self):
        raise NotImplementedError


def run(cls, test):
    torch.manual_seed(3)
    getattr(FrameContract(cls), test)(cls().eval())


BROKEN = [
    (ReportsAWrongSize, "test_size_is_exact"),
    (ReportsAWrongSize, "test_size_of_the_smallest_items"),
    (PreparesAtRandom, "test_prepares_an_item_the_same_way_every_time"),
    (HoldsWeights, "test_preprocessor_travels_to_workers"),
    (RandomEachTime, "test_preprocessor_travels_to_workers"),
    (MixesTheBatch, "test_a_batch_equals_its_items_alone"),
    (UsesNoContent, "test_a_batch_equals_its_items_alone"),
    (LeaksPadding, "test_padding_changes_nothing"),
    (ForgetsTheMask, "test_padding_changes_nothing"),
    (KeepsADeadParameter, "test_every_trainable_parameter_gets_a_gradient"),
    (MovesStatistics, "test_training_mode_moves_no_statistics"),
    (TrainsWhenFrozen, "test_frozen_is_really_frozen"),
    (HasNoDummy, "test_dummy_is_a_valid_input"),
    (StaysInFp32, "test_runs_in_bfloat16"),
]


@pytest.mark.parametrize(("cls", "test"), BROKEN)
def test_a_broken_promise_is_found(cls, test):
    run(Good, test)
    with pytest.raises(AssertionError):
        run(cls, test)


@pytest.mark.parametrize(
    ("features", "mask", "grid", "message"),
    [
        ((2, 3, 4), (2, 3), None, "out_dim"),
        ((2, 3, 5), (2, 2), None, "mask"),
        ((2, 3, 5), (2, 3), (2, 2), "grid"),
    ],
)
def test_a_malformed_output_is_refused_by_name(features, mask, grid, message):
    class Malformed(Good):
        def forward(self, prepared, lengths):
            return Encoded(torch.zeros(features), torch.ones(mask, dtype=torch.bool), grid)

    with pytest.raises(UserError, match=f"Malformed.*{message}|{message}.*Malformed"):
        Malformed()(torch.zeros(2, 3, 7), torch.tensor([3, 3]))


def test_unequal_items_are_grouped_or_padded():
    sizes = (2, 5, 2, 3, 5)
    prepared = [torch.full((n, 7), float(n)) for n in sizes]
    assert Frames(pads=False).group(prepared) == [[0, 2], [1, 4], [3]]
    assert Frames().group(prepared) == [[0, 1, 2, 3, 4]]
    assert Frames().group([]) == []
    batch, lengths = Frames().collate(prepared)
    assert lengths.tolist() == list(sizes)
    assert batch.sum((1, 2)).tolist() == [n * n * 7 for n in sizes]  # padded with zeros, no item is lost
    with pytest.raises(UserError, match=r"\(2, 7\).*\(5, 7\)"):
        Frames(pads=False).collate(prepared)
    with pytest.raises(UserError, match="shapes"):
        Frames().collate([torch.zeros(2, 7), torch.zeros(2, 6)])  # the second axis differs


def test_headers_of_decoded_items():
    image = pytest.importorskip("PIL.Image").new("RGB", (11, 5))
    assert header_of(image) == ImageHeader(width=11, height=5)
    assert header_of((torch.zeros(13).numpy(), 16000)) == AudioHeader(num_samples=13, sample_rate=16000)
    assert header_of(torch.zeros(2, 3).numpy()).shape == (2, 3)


def test_fingerprint_follows_every_value():
    assert Frames(frame=7).fingerprint() == Frames(frame=7).fingerprint()
    assert len({Frames().fingerprint(), Frames(frame=8).fingerprint(), Frames(pads=False).fingerprint()}) == 3


ADAPTERS = {
    "linear": adapters.Linear,
    "MLP": lambda f, d: adapters.MLP(f, d, hidden=17, begin_end=True, modality_vector=True),
    "stacking": lambda f, d: adapters.FrameStacking(f, d, stack=3, begin_end=True),
    "convolution": lambda f, d: adapters.StridedConvolution(f, d, stride=2, layers=2),
    "Perceiver": lambda f, d: adapters.PerceiverResampler(f, d, queries=3, heads=2, layers=1),
}


@pytest.mark.parametrize("name", ADAPTERS)
class TestEveryAdapter(AdapterContract):
    @pytest.fixture(autouse=True)
    def _choose(self, name):
        self.name = name

    def make(self, in_dim, d_model):
        return ADAPTERS[self.name](in_dim, d_model)


class TestPixelShuffle(AdapterContract):
    grid_only = True

    def make(self, in_dim, d_model):
        return adapters.PixelShuffle(in_dim, d_model, factor=2)


def test_the_documented_encoder_is_short_and_passes(tmp_path, monkeypatch):
    """The example of docs/encoders.md passes every test of the contract."""
    page = (Path(__file__).parents[1] / "docs" / "encoders.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    body = example[example.index("@dataclass") : example.index("class TestMyEncoder")]
    assert len([line for line in body.splitlines() if line.strip()]) < 30
    (tmp_path / "documented_encoder.py").write_text(example, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    suite = importlib.import_module("documented_encoder").TestMyEncoder()
    tests = [name for name in dir(suite) if name.startswith("test_")]
    assert len(tests) > 10
    for name in tests:
        getattr(suite, name)(suite.make().eval())
