"""Write the scores of the encoders that ship into their model cards. `python benchmarks/cards.py`.

From results/molecules-probe.jsonl: the scores of the weights as they are now, by data set and metric, and beside them
those of the same network untrained and of fingerprints, where they were measured.
"""

from __future__ import annotations

import statistics
from collections import defaultdict

from record import read

from graphcl.benchmark_config import fingerprint
from graphcl.hub import list_pretrained, read_card, write_card
from graphcl.read_config import find_pretrained

BESIDE = {"untrained": "the same network untrained", "ecfp": "ECFP4 fingerprints"}


def scores(name: str) -> dict[str, float]:
    """`bbbp roc_auc, frozen probe, scaffold split` -> the mean over the seeds; `bbbp roc_auc, ECFP4 fingerprints`."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in read("molecules-probe"):
        what = "frozen probe, scaffold split" if row.get("weights") == fingerprint(name) else BESIDE.get(row["row"])
        if what and "score" in row:
            metric = next(iter(row["score"]["mean"]))
            found[f"{row['data']} {metric}"][what].append(row["score"]["mean"][metric])
    order = ["frozen probe, scaffold split", *BESIDE.values()]
    return {
        f"{key}, {what}": round(statistics.fmean(rows[what]), 4)
        for key, rows in found.items()
        for what in order
        if what in rows
    }


if __name__ == "__main__":
    for name in list_pretrained():
        folder = find_pretrained(name)
        write_card(folder, read_card(folder).model_copy(update={"scores": scores(name)}))
