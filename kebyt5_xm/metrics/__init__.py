"""Metrics, one file a kind: `metrics` of a source in a recipe names them by `class_path`."""

from kebyt5_xm.metrics.bootstrap import Score, difference, resample, score
from kebyt5_xm.metrics.matching import Accuracy, ExactMatch
from kebyt5_xm.metrics.metric import Answer, Metric

__all__ = ["Accuracy", "Answer", "ExactMatch", "Metric", "Score", "difference", "resample", "score"]
