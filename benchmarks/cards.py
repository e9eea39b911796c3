"""Write the scores of the encoders that ship into their model cards. `python benchmarks/cards.py`.

From results/molecules-probe.jsonl: the scores of the weights as they are now, by data set and metric.
"""

from __future__ import annotations

import statistics
from collections import defaultdict

from record import read

from graphcl.benchmark_config import fingerprint
from graphcl.hub import list_pretrained, read_card, write_card
from graphcl.read_config import find_pretrained


def scores(name: str) -> dict[str, float]:
    """`bbbp roc_auc, frozen probe, scaffold split` -> the mean over the seeds."""
    found: dict[str, list[float]] = defaultdict(list)
    for row in read("molecules-probe"):
        if row.get("weights") == fingerprint(name) and "score" in row:
            metric = next(iter(row["score"]["mean"]))
            found[f"{row['data']} {metric}, frozen probe, scaffold split"].append(row["score"]["mean"][metric])
    return {key: round(statistics.fmean(values), 4) for key, values in found.items()}


if __name__ == "__main__":
    for name in list_pretrained():
        folder = find_pretrained(name)
        write_card(folder, read_card(folder).model_copy(update={"scores": scores(name)}))
