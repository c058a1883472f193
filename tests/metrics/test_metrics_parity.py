"""Figures equal those of the libraries that papers use, within 1e-12, or 1e-6 for libraries that compute in fp32."""

import unicodedata

import jiwer
import numpy as np
import pytest
import sacrebleu
import scipy.stats
import torch
from metric_answers import ENTITIES, LABELS, labelled, numbers, sentences
from metric_answers import TEXTS as HAND_MADE
from torchmetrics.functional import classification, pearson_corrcoef, spearman_corrcoef
from torchmetrics.functional.text import char_error_rate, sacre_bleu_score, word_error_rate

from kebyt5_xm.metrics import (
    AUPRC,
    BLEU,
    Accuracy,
    Answer,
    CharacterErrorRate,
    ChrF,
    CIDEr,
    EntityF1,
    MacroF1,
    MicroF1,
    Pearson,
    RougeL,
    Spearman,
    ThresholdF1,
    WordErrorRate,
)

EXACT = 1e-12
SINGLE = 1e-6
"""torchmetrics sums in fp32."""


def tidy(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


TEXTS = [*HAND_MADE, *sentences()]
PAIRS = [(tidy(answer.text), tidy(answer.references[0])) for answer in TEXTS]
FIRST = [Answer(text, (reference,)) for text, reference in PAIRS]
WRITTEN, RIGHT = map(list, zip(*PAIRS, strict=True))


@pytest.mark.parametrize(
    ("metric", "of_jiwer", "of_torchmetrics"),
    [
        (CharacterErrorRate(), jiwer.cer, char_error_rate),
        (WordErrorRate(), jiwer.wer, word_error_rate),
    ],
)
def test_error_rates(metric, of_jiwer, of_torchmetrics) -> None:
    assert metric(FIRST) == pytest.approx(of_jiwer(RIGHT, WRITTEN), EXACT)
    assert metric(FIRST) == pytest.approx(float(of_torchmetrics(WRITTEN, RIGHT)), SINGLE)


def test_error_rates_with_jiwers_own_transforms() -> None:
    rule = jiwer.Compose(
        [jiwer.RemovePunctuation(), jiwer.RemoveWhiteSpace(), jiwer.ReduceToListOfListOfChars()]
    )
    expected = jiwer.cer(RIGHT, WRITTEN, reference_transform=rule, hypothesis_transform=rule)
    assert CharacterErrorRate("removed", "removed")(FIRST) == pytest.approx(expected, EXACT)


@pytest.mark.parametrize("tokenize", ["13a", "zh", "intl", "char", "none"])
def test_bleu(tokenize: str) -> None:
    theirs = sacrebleu.BLEU(tokenize=tokenize, force=True)
    max_references = max(len(answer.references) for answer in TEXTS)
    streams = [
        [tidy(a.references[n]) if n < len(a.references) else None for a in TEXTS]
        for n in range(max_references)
    ]
    assert BLEU(tokenize)(FIRST) == pytest.approx(theirs.corpus_score(WRITTEN, [RIGHT]).score, EXACT)
    assert BLEU(tokenize)(TEXTS) == pytest.approx(theirs.corpus_score(WRITTEN, streams).score, EXACT)
    assert BLEU(tokenize).signature(TEXTS) == str(theirs.get_signature())
    if tokenize != "none":
        # Smoothing does not matter, since every order has a match here.
        found = float(sacre_bleu_score(WRITTEN, [[right] for right in RIGHT], tokenize=tokenize))
        assert BLEU(tokenize)(FIRST) == pytest.approx(100 * found, 1e-5)


@pytest.mark.parametrize("word_order", [0, 2])
def test_chrf(word_order: int) -> None:
    theirs = sacrebleu.CHRF(word_order=word_order)
    # torchmetrics follows chrF++.py, which averages the F-scores of the orders: 57 instead of 55 here.
    assert ChrF(word_order)(FIRST) == pytest.approx(theirs.corpus_score(WRITTEN, [RIGHT]).score, EXACT)


def test_options_of_bleu_and_chrf_reach_sacrebleu() -> None:
    theirs = sacrebleu.BLEU(lowercase=True, force=True)
    answers = [Answer("The Cat sat on the mat", ("the cat sat on The mat",)), *FIRST]
    written = [answer.text for answer in answers]
    right = [[answer.references[0] for answer in answers]]
    assert BLEU(lowercase=True)(answers) == pytest.approx(theirs.corpus_score(written, right).score, EXACT)
    assert BLEU(lowercase=True).signature(answers) == str(theirs.get_signature())
    assert BLEU(lowercase=True)(answers) > BLEU()(answers)
    spaced = sacrebleu.CHRF(whitespace=True).corpus_score(written, right).score
    assert ChrF(spaces=True)(answers) == pytest.approx(spaced, EXACT)
    assert spaced != pytest.approx(ChrF()(answers), EXACT)


def test_a_sacrebleu_bootstrap_draws_from_the_same_sentences() -> None:
    """A resample of one sentence equals the library's public score of that sentence."""
    alone = ChrF().resampled(FIRST, np.eye(len(FIRST), dtype=np.int64))
    expected = [sacrebleu.CHRF().sentence_score(text, [right]).score for text, right in PAIRS]
    assert alone == pytest.approx(expected, EXACT)


def test_labels() -> None:
    answers = labelled()
    written = torch.tensor([LABELS.index(answer.text) for answer in answers])
    right = torch.tensor([LABELS.index(answer.references[0]) for answer in answers])
    number = len(LABELS)

    def theirs(average: str) -> float:
        return float(classification.multiclass_f1_score(written, right, number, average=average))

    accuracy = classification.multiclass_accuracy(written, right, number, average="micro")
    assert Accuracy()(answers) == pytest.approx(float(accuracy), SINGLE)
    assert MacroF1()(answers) == pytest.approx(theirs("macro"), SINGLE)
    assert MicroF1()(answers) == pytest.approx(theirs("micro"), SINGLE)


def test_micro_f1_without_a_label_is_scikit_learns() -> None:
    from sklearn.metrics import f1_score

    answers = labelled()
    written, right = [answer.text for answer in answers], [answer.references[0] for answer in answers]
    looked_for = [label for label in LABELS if label != "no_relation"]
    expected = f1_score(right, written, labels=looked_for, average="micro")
    assert MicroF1(ignore=["no_relation"])(answers) == pytest.approx(expected, EXACT)
    assert MacroF1()(answers) == pytest.approx(f1_score(right, written, average="macro"), EXACT)


@pytest.mark.parametrize(
    ("metric", "of_scipy", "of_torchmetrics"),
    [
        (Pearson(), scipy.stats.pearsonr, pearson_corrcoef),
        (Spearman(), scipy.stats.spearmanr, spearman_corrcoef),
    ],
)
def test_correlations(metric, of_scipy, of_torchmetrics) -> None:
    answers = [answer for answer in numbers(61, seed=19) if "점" not in answer.text]
    written = [float(answer.text) for answer in answers]
    right = [float(answer.references[0]) for answer in answers]
    assert len(set(right)) < len(right), "the test needs ties"
    assert metric(answers) == pytest.approx(of_scipy(written, right).statistic, EXACT)
    found = of_torchmetrics(torch.tensor(written), torch.tensor(right))
    assert metric(answers) == pytest.approx(float(found), SINGLE)


def test_rouge_l_is_the_definition() -> None:
    """The reference computes the longest common subsequence by its recursion, the metric by rapidfuzz."""

    def common(left: list[str], right: list[str]) -> int:
        row = [0] * (len(right) + 1)
        for word in left:
            row, above = [0], row
            for place, other in enumerate(right):
                row.append(above[place] + 1 if word == other else max(row[place], above[place + 1]))
        return row[-1]

    def f1(text: str, right: str) -> float:
        hits, lengths = common(text.split(), right.split()), (len(text.split()), len(right.split()))
        precision, recall = hits / max(1, lengths[0]), hits / lengths[1]
        return 2 * precision * recall / (precision + recall) if hits else 0.0

    expected = np.mean([max(f1(tidy(a.text), tidy(right)) for right in a.references) for a in TEXTS])
    assert RougeL()(TEXTS) == pytest.approx(expected, EXACT)


def test_entities_are_the_f1_of_their_occurrences() -> None:
    """scikit-learn's F1 with each occurrence of an entity as a binary decision."""
    from sklearn.metrics import f1_score

    answers = [answer for answer in ENTITIES if len(answer.references) == 1]
    questions: dict[tuple, list[int]] = {}
    for row, answer in enumerate(answers):
        for side, text in enumerate((answer.text, answer.references[0])):
            pieces = [piece.strip() for piece in text.split(";") if piece.strip()]
            for place, piece in enumerate(pieces):
                if text != "없음":
                    key = (row, piece, pieces[:place].count(piece))
                    questions.setdefault(key, [0, 0])[side] = 1
    written, right = zip(*questions.values(), strict=True)
    assert EntityF1()(answers) == pytest.approx(f1_score(right, written), EXACT)


@pytest.mark.parametrize(
    ("tokens", "expected"), [("words", 2.315403984313232), ("characters", 4.993878679830389)]
)
def test_cider_is_that_of_the_coco_captions(tokens, expected: float) -> None:
    """Expected: pycocoevalcap 1.2 (Cider, n=4, sigma=6) on these texts, lower-cased and without punctuation."""
    assert CIDEr(tokens)(HAND_MADE) == pytest.approx(expected, EXACT)


@pytest.mark.parametrize("digits", [1, 2, 9])
def test_auprc_is_klues(digits: int) -> None:
    """The official figure as computed by scikit-learn; with one digit, many answers have equal probabilities."""
    from sklearn.metrics import auc, precision_recall_curve

    answers = [
        Answer(a.text, a.references, {label: round(p, digits) for label, p in a.probabilities.items()})
        for a in labelled()
    ]
    areas = []
    for label in {answer.references[0] for answer in answers}:
        right = [answer.references == (label,) for answer in answers]
        precision, recall, _ = precision_recall_curve(right, [a.probabilities[label] for a in answers])
        areas.append(auc(recall, precision))
    assert AUPRC()(answers) == pytest.approx(np.mean(areas), EXACT)


def test_the_f1_at_a_threshold_is_klues() -> None:
    from sklearn.metrics import f1_score

    answers = [answer for answer in numbers(61, seed=19) if "점" not in answer.text]
    written = [float(answer.text) >= 3 for answer in answers]
    right = [float(answer.references[0]) >= 3 for answer in answers]
    assert ThresholdF1()(answers) == pytest.approx(f1_score(right, written), EXACT)
