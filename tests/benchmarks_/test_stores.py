"""The readers of molecules give what the studies of results/ were made of."""

import json

import pytest

from benchmarks.stores import FILE, digest
from graphcl.data.sources import load_data

HASHES = json.loads(FILE.read_text(encoding="utf-8"))["hashes"]


def test_the_bundled_set_is_read_as_for_the_studies():
    assert digest(load_data("bbbp")) == HASHES["bbbp"]


@pytest.mark.parametrize("name", ["esol", "sider"])
def test_sets_are_read_as_for_the_studies(name, graphcl_data):
    assert digest(load_data(name)) == HASHES[name]


def test_every_array_and_text_counts():
    store = load_data("bbbp")
    changed = [store._like(y=1 - store.y), store._like(smiles=[*store.smiles[:-1], "C"]), store.with_x(store.x + 1)]
    assert len({digest(one) for one in (store, *changed)}) == 4
