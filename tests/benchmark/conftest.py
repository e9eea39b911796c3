"""A small graph, and a benchmark file that names it."""

import numpy as np
import pytest
import yaml
from small_benchmark import SMALL


@pytest.fixture
def graph(tmp_path):
    """A small graph of two communities, as a file."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], 30)
    near = rng.random((60, 60)) < np.where(y[:, None] == y[None], 0.2, 0.02)
    edges = np.stack(np.triu(near, 1).nonzero())
    x = rng.normal(size=(60, 5)).astype(np.float32) + y[:, None]
    path = tmp_path / "two.npz"
    np.savez(path, edge_index=np.concatenate([edges, edges[::-1]], 1), x=x.astype(np.float32), y=y)
    return str(path)


@pytest.fixture
def file(graph, tmp_path, monkeypatch):
    """Writes a benchmark file on the small graph, with changes; gives its path."""
    monkeypatch.chdir(tmp_path)

    def write(**changes):
        values = {
            "name": "small",
            "cells": [{"config": "dgi"}, {"config": "gae", "overrides": ["encoder.out=4"]}],
            "data": [graph],
            "seeds": [0, 1],
            "protocols": ["linear/clean", "knn/clean"],
            "overrides": SMALL,
        }
        path = tmp_path / "small.yaml"
        path.write_text(yaml.safe_dump(values | changes))
        return path

    return write
