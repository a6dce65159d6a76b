"""Measuring captioners: metrics, baselines, reports, explanations."""
