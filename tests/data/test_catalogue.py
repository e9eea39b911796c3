import subprocess
import sys
from pathlib import Path

import pytest

from graphcl.data.catalogue import BUNDLED, DATASETS, find


def test_it_loads_no_torch():
    code = "import sys, graphcl.data, graphcl.data.catalogue; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", ["Cora", " cora ", "CORA", "imdb_binary", "IMDB-BINARY", "ptc-mr", "Amazon-Photo"])
def test_case_and_dashes_do_not_matter(name):
    assert find(name).name.replace("_", "-") == name.strip().lower().replace("_", "-")


def test_every_key_finds_itself():
    for name, entry in DATASETS.items():
        assert find(name) is entry
        assert entry.level in ("node", "graph") and entry.size > 0 and entry.description
    assert {name for name, entry in DATASETS.items() if entry.bundled} == set(BUNDLED)


def test_near_names_are_listed():
    with pytest.raises(ValueError, match="unknown data set 'coraa'; did you mean cora"):
        find("coraa")
    with pytest.raises(ValueError, match=r"did you mean .*imdb-binary or imdb-multi"):
        find("imdb")
    with pytest.raises(ValueError, match="unknown data set 'zzzzzz'; known: cora"):
        find("zzzzzz")


@pytest.mark.parametrize(
    "name", ["../cora", "../../no/such", "cora/../cora", "..", "/no/such/place", "a\\b", "mutag\0"]
)
def test_names_cannot_leave_their_place(name, tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    if name == "..":  # it exists, so it is a path and never a name
        assert find(name) == Path("..")
        return
    with pytest.raises(ValueError, match="neither a data set nor a path that exists"):
        find(name)


def test_an_empty_name():
    with pytest.raises(ValueError, match="data set name is empty"):
        find("  ")


def test_a_path_that_exists_is_a_path_but_a_known_name_wins(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cora").mkdir()
    (tmp_path / "mine").mkdir()
    assert find("mine") == Path("mine")
    assert find("cora") is DATASETS["cora"]
    assert find("./cora") == Path("./cora")
