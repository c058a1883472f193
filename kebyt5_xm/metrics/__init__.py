"""Metrics, one file a kind of answer: `metrics` of a source in a recipe names them by `class_path`."""

from kebyt5_xm.metrics.bleu_and_chrf import BLEU, ChrF
from kebyt5_xm.metrics.bootstrap import Score, difference, resample, score
from kebyt5_xm.metrics.checks import check_metrics
from kebyt5_xm.metrics.cider import CIDEr
from kebyt5_xm.metrics.entity_f1 import EntityF1
from kebyt5_xm.metrics.error_rate import CharacterErrorRate, WordErrorRate
from kebyt5_xm.metrics.labels import AUPRC, Accuracy, MacroF1, MicroF1
from kebyt5_xm.metrics.malformed import Malformed
from kebyt5_xm.metrics.metric import Answer, MeanMetric, Metric, SetMetric
from kebyt5_xm.metrics.numeric import Pearson, Spearman, ThresholdF1
from kebyt5_xm.metrics.overlap import CharacterF1, ExactMatch, RougeL, RougeW, VQAAccuracy

__all__ = [
    "AUPRC",
    "BLEU",
    "Accuracy",
    "Answer",
    "CIDEr",
    "CharacterErrorRate",
    "CharacterF1",
    "ChrF",
    "EntityF1",
    "ExactMatch",
    "MacroF1",
    "Malformed",
    "MeanMetric",
    "Metric",
    "MicroF1",
    "Pearson",
    "RougeL",
    "RougeW",
    "Score",
    "SetMetric",
    "Spearman",
    "ThresholdF1",
    "VQAAccuracy",
    "WordErrorRate",
    "check_metrics",
    "difference",
    "resample",
    "score",
]
