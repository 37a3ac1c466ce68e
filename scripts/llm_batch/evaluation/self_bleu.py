"""self-BLEU: how alike the samples of a row are (Zhu et al. 2018, arXiv:1802.01886)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MOST_SAMPLES = 4000
"""Samples compared at most: at 0.2 to 1 ms each some seconds a run."""

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def self_bleu(texts: Sequence[str], rows: Integers, row_count: int) -> Floats:
    """Return the mean BLEU, 0 to 100, of each sample of a row against its others.

    NaN for rows with fewer than two samples, and for those beyond an even draw of as many rows as
    have `MOST_SAMPLES` samples together. sacrebleu's sentence score with effective order.
    """
    from sacrebleu.metrics.bleu import BLEU

    counts = np.bincount(rows, minlength=row_count)
    several = np.flatnonzero(counts > 1)
    found = np.full(row_count, np.nan)
    if len(several) == 0:
        return found
    wanted = max(1, min(len(several), int(MOST_SAMPLES / counts[several].mean())))
    drawn = set(several[np.linspace(0, len(several) - 1, wanted).astype(np.int64)].tolist())
    samples: dict[int, list[str]] = {}
    for text, row in zip(texts, rows.tolist(), strict=True):
        if row in drawn:
            samples.setdefault(row, []).append(text)
    bleu = BLEU(effective_order=True)
    for row, own in samples.items():
        scores = [
            bleu.sentence_score(text, own[:place] + own[place + 1 :]).score
            for place, text in enumerate(own)
        ]
        found[row] = float(np.mean(scores))
    return found
