"""How well a number separates wrong edits from right ones: AUC with interval, rank correlation."""

from typing import Any

import numpy as np
from scipy.stats import mannwhitneyu, rankdata, spearmanr

DRAWS = 1000


def auc(values: np.ndarray, wrong: np.ndarray) -> float:
    """The chance that a wrong edit's value is above a right one's; 0.5 says nothing. NaN without
    both kinds.

    values: float [N]; wrong: bool [N].
    """
    if wrong.all() or not wrong.any():
        return float("nan")
    test: Any = mannwhitneyu(values[wrong], values[~wrong])
    return float(test.statistic / (wrong.sum() * (~wrong).sum()))


def auc_interval(values: np.ndarray, wrong: np.ndarray, scenes: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of the AUC, drawing scenes with all their variants. scenes: int [N],
    each edit's own.
    """
    rng = np.random.default_rng(0)
    members = [np.flatnonzero(scenes == s) for s in np.unique(scenes)]
    draws = []
    for _ in range(DRAWS):
        drawn = rng.integers(len(members), size=len(members))
        edits = np.concatenate([members[i] for i in drawn])
        draws.append(auc(values[edits], wrong[edits]))
    kept = np.array(draws)[~np.isnan(draws)]
    low, high = np.percentile(kept, [2.5, 97.5]) if len(kept) else (float("nan"),) * 2
    return float(low), float(high)


def rank_correlation(values: np.ndarray, error: np.ndarray) -> float:
    """Spearman's, of float [N] each; NaN where one of the two is constant."""
    if np.ptp(values) == 0 or np.ptp(error) == 0:
        return float("nan")
    test: Any = spearmanr(values, error)
    return float(test.statistic)


def within_scenes(
    values: np.ndarray, wrong: np.ndarray, error: np.ndarray, scenes: np.ndarray
) -> tuple[float, float]:
    """AUC and rank correlation among variants of the same edit, so that contrast and difficulty
    stand still.

    The AUC is the mean over scenes that have both right and wrong edits; the correlation is that of
    the ranks within each scene, over all. NaN where there is nothing to compare.
    """
    areas, ranks = [], []
    for scene in np.unique(scenes):
        own = scenes == scene
        areas.append(auc(values[own], wrong[own]))
        ranks.append([rankdata(values[own]), rankdata(error[own])])
    pairs = np.concatenate([r - np.mean(r, axis=1, keepdims=True) for r in ranks], axis=1)
    spread = np.sqrt((pairs**2).sum(axis=1).prod())
    mixed = [a for a in areas if not np.isnan(a)]
    area = float(np.mean(mixed)) if mixed else float("nan")
    return area, float(pairs.prod(axis=0).sum() / spread) if spread else float("nan")
