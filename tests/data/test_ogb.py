"""OGB's features, data sets, splits and scores against the ogb package."""

from __future__ import annotations

import csv
import os
import shutil
import sys
import threading
import zipfile
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from ogb_sets import SMILES, rows, write_set
from rdkit import Chem
from torch_geometric.data import Data
from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
from torch_geometric.data.storage import GlobalStorage

from graphcl.data import ogb
from graphcl.data.catalogue import DATASETS
from graphcl.data.molecules import parse_smiles
from graphcl.data.ogb import ATOM_DIMS, BOND_DIMS, ogb_arrays, ogb_score, ogb_split, ogb_store
from graphcl.data.sources import load_data
from graphcl.data.splits import make_splits

features = ogb._package("ogb.utils.features")

ODD = [
    "*C",
    "[Na+].[Cl-]",
    "[He]",
    "[CH3]",
    "[C]",
    "[2H]C([2H])[2H]",
    "C/C=C/C",
    "C/C=C\\C",
    "CC=CC",
    "N[C@@H](C)C(=O)O",
    "N[C@H](C)C(=O)O",
    "F[S](F)(F)(F)(F)F",
    "FP(F)(F)(F)F",
    "F[Pt@SP1](F)(Cl)Cl",
    "[NH3]->[Cu]",
    "[Zr+4].[O-2].[O-2]",
    "[Mo+6]",
    "[Fe-6]",
    "[OH2+]C",
    "O=C1C=CC(=O)C=C1",
    "C1=CC=CC=C1C#N",
    "[SiH4]",
    "B1([H])[H]B([H])[H]1",
]


def by_ogb(molecule):
    x = np.array([features.atom_to_feature_vector(atom) for atom in molecule.GetAtoms()])
    edges = {}
    for bond in molecule.GetBonds():
        ends = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        edges[ends] = edges[ends[::-1]] = features.bond_to_feature_vector(bond)
    return x, edges


def test_the_dims_are_ogbs():
    assert list(ATOM_DIMS) == features.get_atom_feature_dims()
    assert list(BOND_DIMS) == features.get_bond_feature_dims()


def test_features_are_ogbs():
    with (files("graphcl.data") / "bundled" / "BBBP.csv").open(encoding="utf-8", newline="") as file:
        smiles = [row["smiles"] for row in csv.DictReader(file)][::5]
    seen = 0
    for text in [*ODD, *smiles]:
        try:
            molecule = parse_smiles(text)
        except ValueError:
            continue
        seen += 1
        got, (x, edges) = ogb_arrays(molecule), by_ogb(molecule)
        assert np.array_equal(got.x, x), text
        ends = list(map(tuple, got.edges.T.tolist()))
        assert ends == sorted(edges, key=lambda edge: edge[::-1]), text
        assert got.edge_attr.tolist() == [edges[edge] for edge in ends], text
    assert seen > 400


def test_shapes_without_bonds_and_of_a_single_atom():
    got = ogb_arrays(parse_smiles("[He]"))
    assert got.x.shape == (1, 9) and got.edges.shape == (2, 0) and got.edge_attr.shape == (0, 3)


def test_what_ogb_has_no_category_for_gets_the_number_after_the_last():
    molecule = Chem.RWMol(parse_smiles("Cc1cccc(C)c1-c1c(C)cccc1C"))
    biaryl = next(
        bond
        for bond in molecule.GetBonds()
        if bond.GetBondType() == Chem.BondType.SINGLE
        and all(atom.GetIsAromatic() for atom in (bond.GetBeginAtom(), bond.GetEndAtom()))
    )
    biaryl.SetStereo(Chem.BondStereo.STEREOATROPCW)
    with pytest.raises(ValueError, match="STEREOATROPCW"):
        features.bond_to_feature_vector(biaryl)
    assert sorted(set(ogb_arrays(molecule).edge_attr[:, 1].tolist())) == [0, BOND_DIMS[1]]


# --- data sets, in OGB's format on the disk ---------------------------------------------------------------------------


@pytest.fixture
def roots(tmp_path, monkeypatch):
    """GRAPHCL_DATA and GRAPHCL_CACHE, both empty, and no network."""
    monkeypatch.setenv("GRAPHCL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("GRAPHCL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()

    def refused(*args, **kwargs):
        raise OSError("no network in a test")

    monkeypatch.setattr("urllib.request.urlopen", refused)
    return tmp_path / "data", tmp_path / "cache"


LABELS = {
    "ogbg-molbbbp": [[i % 2] for i in range(10)],
    "ogbg-molclintox": [[i % 2, "" if i in (0, 7) else 1 - i % 2] for i in range(10)],
    "ogbg-molesol": [[i / 7 - 1] for i in range(10)],
}


@pytest.mark.parametrize("name", LABELS)
def test_a_set_is_what_the_ogb_package_reads(name, roots, tmp_path):
    folder = write_set(roots[0] / "ogb", name, LABELS[name])
    before = sorted(path.relative_to(folder) for path in folder.rglob("*"))
    store = load_data(name)
    assert sorted(path.relative_to(folder) for path in folder.rglob("*")) == before  # read-only
    assert list(store.smiles) == SMILES and list(store.names) == [f"mol{i}" for i in range(10)]

    shutil.copytree(folder, tmp_path / "theirs" / folder.name)
    with torch.serialization.safe_globals([Data, DataEdgeAttr, DataTensorAttr, GlobalStorage]):
        theirs = ogb._package("ogb.graphproppred").PygGraphPropPredDataset(name, root=str(tmp_path / "theirs"))
    for i, graph in enumerate(theirs):
        ours, order = store[i], np.lexsort(graph.edge_index.numpy())
        assert torch.equal(ours.x, graph.x)
        assert torch.equal(ours.edge_index, graph.edge_index[:, order])
        assert torch.equal(ours.edge_attr, graph.edge_attr[order])
        y = graph.y[0].float()
        assert torch.allclose(ours.y.float().view(-1), y, equal_nan=True)
    split = theirs.get_idx_split()
    for got, part in zip(make_splits(store, "public")[0], ("train", "valid", "test"), strict=True):
        assert torch.equal(got, split[part])


def test_labels_are_of_the_types_that_the_rest_expects(roots):
    for name, labels in LABELS.items():
        write_set(roots[0] / "ogb", name, labels)
    one, two, values = (ogb_store(name).y for name in LABELS)
    assert one.dtype == torch.int64 and one.shape == (10,)
    assert two.dtype == torch.float32 and two.shape == (10, 2) and two.isnan().nonzero().tolist() == [[0, 1], [7, 1]]
    assert values.dtype == torch.float32 and values.shape == (10,)
    write_set(roots[0] / "ogb", "ogbg-molbace", [["" if i == 3 else i % 2] for i in range(10)])
    assert ogb_store("ogbg-molbace").y.tolist() == [0, 1, 0, -1, 0, 1, 0, 1, 0, 1]


def test_from_smiles_and_from_the_disk_are_the_same_graphs(roots):
    write_set(roots[0] / "ogb", "ogbg-molbbbp", LABELS["ogbg-molbbbp"], mapping=False)
    store = load_data("OGBG_molbbbp", features="ogb")
    assert store.smiles is None and store.names is None
    for graph, text in zip(store, SMILES, strict=True):
        arrays = ogb_arrays(parse_smiles(text))
        assert np.array_equal(graph.x, arrays.x) and np.array_equal(graph.edge_index, arrays.edges)
        assert np.array_equal(graph.edge_attr, arrays.edge_attr)


def test_it_is_read_once(roots, monkeypatch):
    folder = write_set(roots[0] / "ogb", "ogbg-molesol", LABELS["ogbg-molesol"])
    first = ogb_store("ogbg-molesol")
    monkeypatch.setattr(ogb, "_read", lambda name: pytest.fail("read again"))
    assert torch.equal(ogb_store("ogbg-molesol").y, first.y)
    monkeypatch.undo()
    monkeypatch.setenv("GRAPHCL_DATA", str(roots[0]))
    monkeypatch.setenv("GRAPHCL_CACHE", str(roots[1]))
    rows(folder / "raw" / "graph-label.csv.gz", [[2.5]] * 10)
    assert ogb_store("ogbg-molesol").y.tolist() == [2.5] * 10


def test_the_split_is_for_the_whole_set(roots):
    folder = write_set(roots[0] / "ogb", "ogbg-molesol", LABELS["ogbg-molesol"])
    store = ogb_store("ogbg-molesol")
    assert [part.tolist() for part in ogb_split("ogbg-molesol", 10)] == [[0, 2, 4, 5, 6, 9], [1, 3], [7, 8]]
    with pytest.raises(ValueError, match=r"the split names 10 graphs, the data has 4; .* whole of ogbg-molesol"):
        make_splits(store.subset(torch.arange(4)), "public")
    rows(folder / "split" / "scaffold" / "test.csv.gz", [[7], [7]])
    with pytest.raises(ValueError, match="every graph once"):
        ogb_split("ogbg-molesol", 10)
    (folder / "split" / "scaffold" / "test.csv.gz").unlink()
    with pytest.raises(ValueError, match=r"test\.csv\.gz: not as OGB writes it \(FileNotFoundError"):
        ogb_split("ogbg-molesol", 10)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("node-feat.csv.gz", None, r"ogbg_molesol: not as OGB writes it"),
        ("num-node-list.csv.gz", None, r"ogbg_molesol: not as OGB writes it \(RuntimeError: No necessary file"),
        ("graph-label.csv.gz", [[1.0]] * 9, r"labels are \[9, 1\], not \[10, 1\]"),
        ("graph-label.csv.gz", [["toxic"]] * 10, r"not as OGB writes it \(ValueError"),
        ("edge-feat.csv.gz", [[0, 0]] * 100, "features, not 9 and 3 integers"),
        ("num-edge-list.csv.gz", [[1]] * 10, "not as OGB writes it"),
    ],
)
def test_damaged_sets_are_refused_with_their_place(file, content, message, roots):
    folder = write_set(roots[0] / "ogb", "ogbg-molesol", LABELS["ogbg-molesol"])
    (folder / "raw" / file).unlink()
    if content is not None:
        rows(folder / "raw" / file, content)
    with pytest.raises(ValueError, match=message):
        ogb_store("ogbg-molesol")


def test_truncated_files_and_other_releases_are_refused(roots, monkeypatch):
    folder = write_set(roots[0] / "ogb", "ogbg-molesol", LABELS["ogbg-molesol"])
    edges = folder / "raw" / "edge.csv.gz"
    edges.write_bytes(edges.read_bytes()[:30])
    with pytest.raises(ValueError, match=r"not as OGB writes it .* fetch the archive again"):
        ogb_store("ogbg-molesol")
    (folder / "RELEASE_v1.txt").unlink()
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))  # as ogb would
    with pytest.raises(ValueError, match=r"not version 1, as RELEASE_v1\.txt is missing"):
        ogb_store("ogbg-molesol")


# --- downloads --------------------------------------------------------------------------------------------------------


def packed(tmp_path: Path, inner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address of ogbg-molesol is that of an archive on the disk."""
    source = write_set(tmp_path / "made", "ogbg-molesol", LABELS["ogbg-molesol"])
    with zipfile.ZipFile(tmp_path / "esol.zip", "w") as archive:
        for path in source.rglob("*"):
            archive.write(path, Path(inner) / path.relative_to(source))
    about = ogb._about
    monkeypatch.setattr(ogb, "_about", lambda name: about(name) | {"url": (tmp_path / "esol.zip").as_uri()})


def test_a_set_that_is_not_there_is_downloaded_once(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("GRAPHCL_DATA", raising=False)
    monkeypatch.setenv("GRAPHCL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    packed(tmp_path, "esol", monkeypatch)
    assert len(ogb_store("ogbg-molesol")) == 10
    (tmp_path / "esol.zip").unlink()
    assert len(ogb_store("ogbg-molesol")) == 10
    assert sorted(path.name for path in (tmp_path / "cache" / "ogb").iterdir()) == ["ogbg_molesol"]
    assert capsys.readouterr().out == ""


def test_another_archive_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.delenv("GRAPHCL_DATA", raising=False)
    monkeypatch.setenv("GRAPHCL_CACHE", str(tmp_path / "cache"))
    packed(tmp_path, "lipo", monkeypatch)
    with pytest.raises(ValueError, match=r"data set 'ogbg-molesol': downloaded from file:.*, which failed"):
        ogb_store("ogbg-molesol")
    assert list((tmp_path / "cache" / "ogb").iterdir()) == []


def test_without_network_the_way_out_is_told(roots):
    with pytest.raises(
        ValueError, match=r"looked in .*/ogb/ogbg_molhiv and downloaded from .*, which failed: no network"
    ):
        load_data("ogbg-molhiv")
    with pytest.raises(ValueError, match="'ogbg-ppa' is no molecule data set of OGB; known: ogbg-molbace"):
        ogb_store("ogbg-ppa")


def test_ogb_is_imported_without_looking_for_a_newer_one(monkeypatch):
    for module in [key for key in sys.modules if key == "outdated" or key.split(".")[0] == "ogb"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delenv("OUTDATED_IGNORE", raising=False)
    threads = threading.active_count()
    ogb._package("ogb")
    assert threading.active_count() == threads
    assert "outdated" not in sys.modules and "OUTDATED_IGNORE" not in os.environ


# --- catalogue and scores ---------------------------------------------------------------------------------------------


def test_the_catalogue_is_ogbs_table():
    listed = [entry for entry in DATASETS.values() if entry.kind == "ogb"]
    metrics = {"rocauc": "roc_auc", "ap": "prc_auc", "rmse": "rmse"}
    for entry in listed:
        about = ogb._about(entry.name)
        assert (entry.tasks, entry.metric) == (int(about["num tasks"]), metrics[about["eval metric"]])
        assert (entry.classes == 0) == (about["task type"] == "regression")
    with pytest.raises(ValueError, match="known: ") as known:
        ogb._about("nothing")
    assert str(known.value).split("known: ")[1].split(", ") == [entry.name for entry in listed]


def test_scores_are_those_of_ogbs_evaluator():
    generator = torch.Generator().manual_seed(0)
    y, scores = torch.randint(2, (50,), generator=generator), torch.randn(50, generator=generator)
    evaluator = ogb._package("ogb.graphproppred").Evaluator("ogbg-molhiv")
    wanted = evaluator.eval({"y_true": y[:, None].numpy(), "y_pred": scores[:, None].numpy()})
    assert ogb_score("ogbg-molhiv", y, scores) == pytest.approx(wanted)
    assert ogb_score("ogbg-molhiv", y.numpy(), scores.numpy()) == pytest.approx(wanted)
    hidden = torch.cat([y, -torch.ones(5, dtype=torch.long)])  # -1 is missing
    assert ogb_score("ogbg-molhiv", hidden, torch.cat([scores, torch.ones(5)])) == pytest.approx(wanted)
    values = torch.tensor([-1.0, 2.0])  # a value, not a missing one
    assert ogb_score("ogbg-molesol", values, values + 3)["rmse"] == pytest.approx(3)
    many = torch.where(torch.rand(40, 17, generator=generator) < 0.3, torch.nan, 1.0)
    many[::2] *= 0
    assert 0 < ogb_score("ogbg-molmuv", many, torch.randn(40, 17, generator=generator))["ap"] < 1


@pytest.mark.parametrize(
    ("name", "y", "scores", "message"),
    [
        ("ogbg-molhiv", [0, 1], [0.1], "ogbg-molhiv: OGB's evaluator: Shape of y_true and y_pred must be the same"),
        ("ogbg-molhiv", [1, 1], [0.1, 0.2], "ogbg-molhiv: OGB's evaluator: No positively labeled data"),
        ("ogbg-molclintox", [0, 1], [0.1, 0.2], "Number of tasks for ogbg-molclintox should be 2 but 1 given"),
        ("ogbg-molhiv", [0, 1], [0.1, float("nan")], "ogbg-molhiv: a prediction is NaN"),
        ("ogbg-ppa", [0, 1], [0, 1], "'ogbg-ppa' is no molecule data set of OGB"),
    ],
)
def test_what_cannot_be_scored_is_refused(name, y, scores, message):
    with pytest.raises(ValueError, match=message):
        ogb_score(name, torch.tensor(y), torch.tensor(scores))


def test_the_real_molhiv():
    place = Path(os.environ.get("GRAPHCL_DATA", "")) / "ogb" / "ogbg_molhiv"
    if "GRAPHCL_DATA" not in os.environ or not place.is_dir():
        pytest.skip("needs GRAPHCL_DATA with ogb/ogbg_molhiv")
    store = load_data("ogbg-molhiv")
    entry = DATASETS["ogbg-molhiv"]
    assert len(store) == entry.size and int((store.y == 1).sum()) == 1443
    (split,) = make_splits(store, "public")
    assert [len(part) for part in split] == [32901, 4113, 4113]
    # Stereo and conjugation are seen a little otherwise by every version of RDKit; everything else is the same.
    for i in range(0, len(store), 4000):
        graph, arrays = store[i], ogb_arrays(Chem.MolFromSmiles(store.smiles[i]))
        assert np.array_equal(graph.x[:, [0, 2, 3, 4, 7, 8]], arrays.x[:, [0, 2, 3, 4, 7, 8]])
        assert np.array_equal(graph.edge_index, arrays.edges)
        assert np.array_equal(graph.edge_attr[:, 0], arrays.edge_attr[:, 0])
