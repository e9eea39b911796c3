"""Rows of results as `graphcl benchmark` writes them, by hand."""

import numpy as np

from graphcl.read_config import load_config

CONFIG = load_config("dgi").model_dump(mode="json")


def row(name, data="cora", seed=0, values=(0.5, 0.6), untrained=(0.4, 0.5), protocol="linear/clean", **changes):
    made = {
        "row": name,
        "data": data,
        "encoder": None,
        "seed": seed,
        "protocol": protocol,
        "column": protocol,
        "version": 1,
        "score": {"values": {"accuracy": list(values)}, "mean": {"accuracy": float(np.mean(values))}, "valid": []},
        "commit": "abc1234",
        "hash": f"{abs(hash((name, data, seed))):012x}",
        "baseline": None,
        "config": CONFIG,
    }
    if untrained is not None:
        made["untrained"] = {"values": {"accuracy": list(untrained)}, "mean": {}, "valid": []}
    return made | changes
