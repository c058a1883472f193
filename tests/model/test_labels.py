"""Classification: probabilities of labels compared with their definition."""

from typing import Any

import pytest
import torch
from tiny_model import tiny_model
from torch.utils._python_dispatch import TorchDispatchMode

from kebyt5_xm.errors import UserError
from kebyt5_xm.evaluation.answering import Answering
from kebyt5_xm.model import labels as labels_module
from kebyt5_xm.model.cross_modal import CrossModalT5
from kebyt5_xm.model.decoding import greedy_decode, opening
from kebyt5_xm.model.labels import LabelScorer
from kebyt5_xm.model.network import token_losses
from kebyt5_xm.vocabulary import EOS_ID, encode

LABELS = ("긍정", "긍정적", "no", "부정")  # one is a prefix of another
TEXTS = [["좋은 영화였다"], ["bad"], ["그저 그런, 길고 긴 이야기"]]


@pytest.fixture(scope="module")
def model() -> CrossModalT5:
    torch.manual_seed(3)
    return tiny_model().eval()


def by_definition(model: CrossModalT5, text: list[str]) -> list[float]:
    """Return the probability of each label, computed one label at a time and normalised over all."""
    scores = []
    for label in LABELS:
        targets = torch.tensor([[*encode(label).tolist(), EOS_ID]])
        with torch.no_grad():
            output = model(**model.processor([text]), decoder_input_ids=model.shift_right(targets))
        scores.append(-float(token_losses(output.logits, targets).sum()))
    return torch.tensor(scores, dtype=torch.float64).softmax(0).tolist()


@pytest.mark.parametrize(
    ("max_positions", "max_pairs"), [(4096, 1 << 24), (9, 1 << 24), (4096, 3 * 11 * 80), (4096, 1)]
)
def test_probabilities_match_the_definition(model, monkeypatch, max_positions: int, max_pairs: int) -> None:
    monkeypatch.setattr(labels_module, "MAX_POSITIONS", max_positions)
    monkeypatch.setattr(labels_module, "MAX_PAIRS", max_pairs)
    inputs = model.processor(TEXTS)
    states = model.encode(**inputs).last_hidden_state
    with torch.no_grad():
        found = LabelScorer(LABELS).log_probabilities(model, states, inputs["attention_mask"]).exp()
        for row, text in zip(found.tolist(), TEXTS, strict=True):
            assert row == pytest.approx(by_definition(model, text), rel=1e-4)


class Largest(TorchDispatchMode):
    """Records the number of elements of the largest tensor that is created."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return result


def test_memory_does_not_grow_with_the_square_of_all_labels(model, monkeypatch) -> None:
    """97 labels of 8 positions in 5 rows: 5 x 776 x 776 pairs at once would be 3 million."""
    monkeypatch.setattr(labels_module, "MAX_PAIRS", 5 * 64 * 64)
    scorer = LabelScorer([f"label{n:02}" for n in range(97)])
    states = torch.randn(5, 13, model.config.backbone["d_model"])
    with torch.no_grad(), Largest() as largest:
        found = scorer.log_probabilities(model, states, None)
    assert found.shape == (5, 97)
    # The largest tensor has one number per head for each pair; logits of 64 positions are 5 x 64 x 384.
    heads = model.config.backbone["num_heads"]
    assert largest.numel <= max(5 * 64 * 64 * heads, 5 * 64 * 384)


def test_ranks_agree_on_the_number_of_labels_per_call(model, monkeypatch) -> None:
    """Sharded weights need as many calls on every rank: a rank with shorter inputs follows the others."""
    calls = []
    monkeypatch.setattr(
        LabelScorer,
        "_scores",
        lambda self, decoder, rows, ids: calls.append(1) or torch.zeros(rows, len(ids)),
    )
    scorer, states = LabelScorer(LABELS), torch.zeros(3, 5, model.config.backbone["d_model"])
    scorer.log_probabilities(model, states, None)
    assert len(calls) == 1
    asked = iter([False] * 9)
    scorer.log_probabilities(model, states, None, everywhere=lambda here: next(asked, True))
    # 4096 halved nine times is 8, and the labels take 7, 10, 3 and 7 positions: that of 10 is scored row by row.
    assert len(calls) == 1 + (1 + 3 + 1 + 1)


def test_an_answer_is_the_most_probable_label(model) -> None:
    for text in TEXTS:
        expected = by_definition(model, text)
        best = LABELS[max(range(len(LABELS)), key=expected.__getitem__)]
        assert model.answer(text, labels=LABELS) == best
        assert model.classify(text, LABELS)[best] == pytest.approx(max(expected), rel=1e-4)
    assert [max(p, key=lambda label: p[label]) for p in model.classify(TEXTS, LABELS)] == model.answer(
        TEXTS, labels=LABELS
    )


@pytest.mark.parametrize("labels", [["one"], ["a", "a"], ["a", ""], "ab"])
def test_invalid_lists_of_labels_are_refused(labels) -> None:
    with pytest.raises(UserError, match="expected"):
        LabelScorer(labels)


def test_greedy_decode_generates_the_ids_of_transformers(model) -> None:
    inputs = model.processor(TEXTS)
    states = model.encode(**inputs).last_hidden_state
    expected = model.generate(**inputs, max_new_tokens=11, do_sample=False)[:, 1:]
    assert greedy_decode(model, states, inputs["attention_mask"], 11).tolist() == expected.tolist()
    done = torch.tensor([False, True, False])
    assert not greedy_decode(model, states, inputs["attention_mask"], 11, done)[1].any()
    assert greedy_decode(model, states, inputs["attention_mask"], 11, torch.ones(3).bool()).shape == (3, 0)


def test_examples_are_answered_in_order(model) -> None:
    examples = [model.processor.example(text) for text in TEXTS]
    for labels in (None, LABELS):
        alone = [
            Answering(labels, 11).respond(model, [example], {}, batch_size=1)[0].text for example in examples
        ]
        assert [w.text for w in Answering(labels, 11).respond(model, examples, {}, batch_size=2)] == alone


def test_calls_of_the_whole_model_give_the_same_probabilities(monkeypatch) -> None:
    model = tiny_model()
    inputs = model.processor([["나라 말이"], ["x"]])
    states = model.encode(**inputs).last_hidden_state
    assert states is not None
    scorer = LabelScorer(LABELS)
    expected = scorer.log_probabilities(model, states, inputs["attention_mask"])
    monkeypatch.setattr(opening, "read_weights", lambda backbone: None)
    found = scorer.log_probabilities(model, states, inputs["attention_mask"])
    assert found.allclose(expected, atol=1e-4)
