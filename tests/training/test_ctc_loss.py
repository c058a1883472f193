"""The CTC loss against single recordings; which recordings it takes; what its gradient reaches."""

import numpy as np
import pytest
import torch
from tiny_model import SPECS, recording, tiny_model
from torch.nn import functional as F

from kebyt5_xm.data.batch import IGNORE_INDEX, Batch, collate
from kebyt5_xm.data.inputs import Example
from kebyt5_xm.data.media.interface import MediaInterface
from kebyt5_xm.errors import UserError
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.ctc import BLANK, CTC, CTCHead, CTCHeads
from kebyt5_xm.model.network import teacher_force
from kebyt5_xm.training.ctc_check import check_model
from kebyt5_xm.training.ctc_loss import CTCLoss, TooShort, find_transcripts, frames_needed
from kebyt5_xm.vocabulary import EOS_ID, encode

FRAMES = 3
TEXTS = ("네", "aabb", "ten", "")
SAMPLES = (2503, 1801, 3001, 1201)
ROWS = np.asarray([0, 1, 0, 1])
HEAD = CTC(weight=0.7, frames_per_slot=FRAMES)


def model() -> CrossModalT5:
    built = tiny_model({"speech": SPECS["speech"]})
    built.ctc_heads = CTCHeads({"speech": CTCHead(built.backbone.config.d_model, FRAMES)})
    with torch.no_grad():
        built.ctc_heads["speech"].bias.normal_()  # pyright: ignore
    return built


def interface(built: CrossModalT5) -> MediaInterface:
    module = built.modality("speech")
    return MediaInterface("audio", module.encoder.preprocessor(), module.adapter)


def example(built: CrossModalT5, text: str, *seeds: int, samples: int = 2503) -> Example:
    """Return an example of the recordings of `seeds`, a few bytes around them."""
    made = built.processor.example([" a", *(("speech", recording(n, samples)) for n in seeds), "b"])
    return Example(made.input_ids, np.append(encode(text), np.int16(EOS_ID)), made.media)


def examples(built: CrossModalT5) -> list[Example]:
    return [
        example(built, text, n, samples=size)
        for n, (text, size) in enumerate(zip(TEXTS, SAMPLES, strict=True))
    ]


def batch(
    built: CrossModalT5, chosen: list[Example], rows: np.ndarray | None = None, part: list[int] | None = None
) -> Batch:
    parts = np.asarray(part or [0] * len(chosen))
    return collate(chosen, parts, interfaces={"speech": interface(built)}, packed_row=rows).to("cpu")


def loss_of(built: CrossModalT5, *batches: Batch, parts: frozenset[int] = frozenset({0})) -> torch.Tensor:
    """Return the sum over micro-batches, for a factor of 1 / 11."""
    loss = CTCLoss({"speech": HEAD}, {"speech": parts}, torch.device("cpu"))
    total = torch.zeros(())
    for given in batches:
        output = teacher_force(built, given.inputs, given.labels, ctc_positions=loss.find(given))
        added = loss.add(output, 0, 1 / 11)
        assert added is not None
        total = total + added
    return total


def reference(built: CrossModalT5, chosen: list[Example]) -> torch.Tensor:
    """Return 0.7 / 11 x the sum of PyTorch's loss of each example alone, from the encoder's states."""
    total = torch.zeros(())
    head = built.ctc_heads["speech"]  # pyright: ignore
    for one in chosen:
        alone = batch(built, [one])
        medium = one.media[0]
        states = teacher_force(built, alone.inputs, alone.labels).states
        slots = states[0, medium.start : medium.start + medium.count]  # [M, D]
        logits = F.linear(slots, head.weight, head.bias).reshape(medium.count * FRAMES, BLANK + 1)
        target = torch.tensor([int(id_) - 3 for id_ in one.target_ids[:-1]], dtype=torch.int64)
        total = total + F.ctc_loss(
            logits.log_softmax(-1), target, (len(logits),), (len(target),), blank=BLANK, reduction="sum"
        )
    return total * 0.7 / 11


@pytest.mark.parametrize("rows", [None, ROWS])
def test_a_batch_padded_or_packed_equals_single_recordings(rows: np.ndarray | None) -> None:
    built = model()
    chosen = examples(built)
    found, expected = loss_of(built, batch(built, chosen, rows)), reference(built, chosen)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    found.backward()
    gradients = {name: p.grad.clone() for name, p in built.named_parameters() if p.grad is not None}
    built.zero_grad()
    expected.backward()
    for name, parameter in built.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-5)
    reached = {name for name, gradient in gradients.items() if gradient.any()}
    assert {"ctc_heads.speech.weight", "ctc_heads.speech.bias"} <= reached
    assert {name.split(".")[0:3][-1] for name in reached if name.startswith("modalities")} == {
        "encoder",
        "adapter",
    }
    assert any(name.startswith("backbone.encoder.block.2.") for name in reached)
    assert not any(name.startswith(("backbone.decoder.", "backbone.lm_head")) for name in reached)


def test_two_micro_batches_equal_one() -> None:
    built = model()
    chosen = examples(built)
    whole = loss_of(built, batch(built, chosen))
    halves = loss_of(built, batch(built, chosen[:1]), batch(built, chosen[1:]))
    torch.testing.assert_close(halves, whole, rtol=1e-5, atol=1e-5)


def test_only_single_recordings_of_the_parts_with_labels_count() -> None:
    built = model()
    first, second, third, _ = examples(built)
    two = example(built, "two", 5, 6)
    filler = Example(third.input_ids, third.target_ids, third.media, counted=False)
    text = Example.of_texts("no", "recording")
    for rows in (None, np.asarray([1, 0, 1, 0, 1])):
        given = batch(built, [first, two, filler, text, second], rows, [2, 2, 2, 2, 1])
        found = find_transcripts(given, "speech", frozenset({2}), FRAMES)
        assert found.targets == [list("네".encode())]
        assert found.frames == [first.media[0].count * FRAMES]
        assert found.too_short == []
        torch.testing.assert_close(
            loss_of(built, given, parts=frozenset({2})), reference(built, [first]), rtol=1e-5, atol=1e-5
        )


def test_a_batch_without_transcripts_gives_the_head_a_gradient_of_zero() -> None:
    built = model()
    loss = loss_of(built, batch(built, [Example.of_texts("no", "recording")]))
    loss.backward()
    head = built.ctc_heads["speech"]  # pyright: ignore
    assert loss.item() == 0
    assert head.weight.grad is not None
    assert not head.weight.grad.any()


def test_repeated_bytes_need_a_frame_more() -> None:
    assert [frames_needed(list(text.encode())) for text in ("", "abab", "aab", "aaa")] == [0, 4, 4, 5]


def test_a_recording_with_too_few_frames_is_found_and_the_others_count() -> None:
    built = model()
    short, other = example(built, "x" * 40, 1), example(built, "ten", 2)
    frames = short.media[0].count * FRAMES
    needed = 79
    exact = example(built, "xy" * (frames // 2) + "z" * (frames % 2), 3)
    for rows in (None, np.asarray([0, 0, 0])):
        given = batch(built, [other, short, exact], rows)
        found = find_transcripts(given, "speech", frozenset({0}), FRAMES)
        assert found.too_short == [TooShort(1, frames, needed)]
        assert [len(target) for target in found.targets] == [3, frames]
        assert torch.isfinite(loss_of(built, given))
        torch.testing.assert_close(
            loss_of(built, given), reference(built, [other, exact]), rtol=1e-5, atol=1e-5
        )


def test_the_labels_of_the_model_are_untouched() -> None:
    built = model()
    given = batch(built, examples(built))
    before = given.labels.clone()
    loss_of(built, given)
    assert given.labels.equal(before)
    assert (given.labels == IGNORE_INDEX).any()


def test_a_loss_that_is_not_finite_makes_the_gradient_nan() -> None:
    built = model()
    with torch.no_grad():
        built.ctc_heads["speech"].bias[0] = torch.nan  # pyright: ignore
    loss_of(built, batch(built, examples(built))).backward()
    gain = built.modality("speech").adapter.gain
    assert gain.grad is not None
    assert gain.grad.isnan().all()


def test_the_weight_falls_in_a_straight_line() -> None:
    assert [CTC(weight=0.8, until=4).weight_at(step) for step in (0, 1, 4, 9)] == pytest.approx(
        [0.8, 0.6, 0, 0]
    )
    assert CTC(weight=0.8).weight_at(10**6) == 0.8


def test_the_head_draws_nothing_from_the_global_generator() -> None:
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    CTCHead(13, 2)
    assert torch.rand(3).equal(expected)


@pytest.mark.parametrize(
    ("ctc", "message"),
    [
        (CTC(weight=0.0), r"there\.weight is 0.0, expected more than 0"),
        (CTC(weight=-1.0), r"there\.weight is -1.0"),
        (CTC(weight=float("nan")), r"there\.weight is nan"),
        (CTC(frames_per_slot=0), r"there\.frames_per_slot is 0, expected 1 to 64"),
        (CTC(until=0), r"there\.until is 0"),
        (CTC(sources=[]), r"there\.sources is empty"),
    ],
)
def test_values_that_cannot_be_used_are_refused(ctc: CTC, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ctc.check("there")


def test_modalities_without_time_and_heads_that_train_alone_are_refused() -> None:
    built = tiny_model()
    names = [name for name, _ in built.named_parameters()]
    with pytest.raises(
        UserError, match=r"modalities\.image\.ctc is set, but 'image' is a modality of images"
    ):
        check_model({"image": CTC()}, built, [(name, True) for name in names])
    only_decoder = [(name, name.startswith("backbone.decoder")) for name in names]
    with pytest.raises(UserError, match=r"modalities\.speech\.ctc trains nothing but its own head"):
        check_model({"speech": CTC()}, built, only_decoder)
    check_model({"speech": CTC()}, built, [(name, "speech.adapter" in name) for name in names])
    perceiver = {
        "class_path": "kebyt5_xm.adapters.PerceiverResampler",
        "init_args": {"queries": 3, "heads": 1, "width": 8},
    }
    built = tiny_model({"speech": {**SPECS["speech"], "adapter": perceiver}})
    with pytest.raises(
        UserError, match=r"reads slots in the order of time, but those of PerceiverResampler have none"
    ):
        check_model({"speech": CTC()}, built, [(name, True) for name, _ in built.named_parameters()])
