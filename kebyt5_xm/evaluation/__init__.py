"""Evaluation: baselines, tables of samples, metrics and reports."""
