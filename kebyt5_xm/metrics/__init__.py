"""Metrics, one file a kind: `metrics` of a source in a recipe names them by `class_path`."""

from kebyt5_xm.metrics.bleu_and_chrf import BLEU, ChrF
from kebyt5_xm.metrics.bootstrap import Score, difference, resample, score
from kebyt5_xm.metrics.character_f1 import CharacterF1
from kebyt5_xm.metrics.correlation import Pearson, Spearman
from kebyt5_xm.metrics.entity_f1 import EntityF1
from kebyt5_xm.metrics.error_rate import CharacterErrorRate, WordErrorRate
from kebyt5_xm.metrics.label_f1 import MacroF1, MicroF1
from kebyt5_xm.metrics.matching import Accuracy, ExactMatch
from kebyt5_xm.metrics.metric import Answer, MeanMetric, Metric, SetMetric
from kebyt5_xm.metrics.rouge import RougeL, RougeW

__all__ = [
    "BLEU",
    "Accuracy",
    "Answer",
    "CharacterErrorRate",
    "CharacterF1",
    "ChrF",
    "EntityF1",
    "ExactMatch",
    "MacroF1",
    "MeanMetric",
    "Metric",
    "MicroF1",
    "Pearson",
    "RougeL",
    "RougeW",
    "Score",
    "SetMetric",
    "Spearman",
    "WordErrorRate",
    "difference",
    "resample",
    "score",
]
