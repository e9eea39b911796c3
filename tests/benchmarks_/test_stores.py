"""The readers of molecules give what the studies of results/ were made of."""

import json

import pytest
import torch

from benchmarks.stores import FILE, digest
from graphcl.data.sources import load_data

HASHES = json.loads(FILE.read_text(encoding="utf-8"))["hashes"]


@pytest.fixture(autouse=True)
def _read_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHCL_CACHE", str(tmp_path))


def test_the_bundled_set_is_read_as_for_the_studies():
    assert digest(load_data("bbbp")) == HASHES["bbbp"]


@pytest.mark.parametrize("name", ["esol", "sider"])
def test_sets_are_read_as_for_the_studies(name, graphcl_data):
    assert digest(load_data(name)) == HASHES[name]


def test_every_array_and_the_smiles_count():
    store = load_data("bbbp").subset(torch.arange(3))
    found = [digest(store)]
    for key in ("x", "src", "dst", "edge_attr", "y", "node_ptr", "edge_ptr"):
        changed = store._like()
        values = getattr(store, key).clone()
        values.view(-1)[1] += 1
        setattr(changed, key, values)
        found.append(digest(changed))
    found.append(digest(store._like(smiles=[*store.smiles[:-1], "C"])))
    assert len(set(found)) == len(found) == 9
