"""Rank, measure, compare: metrics, rankers and comparisons in numpy, no torch."""
