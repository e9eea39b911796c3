"""Means and spreads over seeds and folds, and tests over pairs of them; values are {seed: [of each fold]}."""

from __future__ import annotations

import math
import statistics
import warnings

from scipy.stats import wilcoxon


def over_seeds(values: dict[int, list[float]]) -> tuple[float, float | None, float | None]:
    """Mean, standard deviation over the seeds, mean standard deviation over the folds; None where there is one only."""
    means = [statistics.fmean(folds) for folds in values.values()]
    spreads = [statistics.stdev(folds) for folds in values.values() if len(folds) > 1]
    return (
        statistics.fmean(means),
        statistics.stdev(means) if len(means) > 1 else None,
        statistics.fmean(spreads) if spreads else None,
    )


def paired(first: dict[int, list[float]], second: dict[int, list[float]]) -> tuple[float, float | None, int]:
    """Mean difference over the common seeds and folds, p of a two-sided Wilcoxon signed-rank test, number of pairs.

    Without a pair the difference is NaN; p is None under two pairs. Where all are equal p is 1. Two rows that no seed
    changes are compared under one.
    """
    common = sorted(first.keys() & second.keys())
    if all(len({tuple(values[seed]) for seed in common}) == 1 for values in (first, second)):
        common = common[:1]
    pairs = [
        (a, b)
        for seed in common
        if len(first[seed]) == len(second[seed])
        for a, b in zip(first[seed], second[seed], strict=True)
    ]
    if not pairs:
        return math.nan, None, 0
    differences = [round(a - b, 12) for a, b in pairs]  # shares of equal counts differ by 1e-17, which would hide ties
    mean = statistics.fmean(differences)
    if len(pairs) < 2:
        return mean, None, len(pairs)
    if not any(differences):
        return mean, 1.0, len(pairs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ties and zeros: scipy then takes the normal approximation
        return mean, float(wilcoxon(differences).pvalue), len(pairs)
