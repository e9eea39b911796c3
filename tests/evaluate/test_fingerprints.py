"""Fingerprints, descriptors and the forest on them, against RDKit, numpy and scikit-learn."""

import numpy as np
import pytest
import torch
from rdkit import Chem
from rdkit.Chem import AllChem, Descriptors
from sklearn.ensemble import RandomForestRegressor
from sklearn.metrics import roc_auc_score
from torch_geometric.data import Data

import graphcl
from graphcl.data.molecules import molecules_to_store
from graphcl.data.splits import Split
from graphcl.data.store import GraphStore
from graphcl.evaluate import fingerprints
from graphcl.evaluate.fingerprints import descriptors_of_store, ecfp, ecfp_forest, ecfp_of_store


def test_ecfp_has_the_bits_of_the_environments_and_counts_what_is_no_molecule():
    smiles = ["CCO", "no molecule", "c1ccccc1C(=O)O", "", "C(C)(C)(C)(C)C"]
    rows, rejected = ecfp(smiles)
    assert [one.row for one in rejected] == [1, 3, 4] and "valence" in rejected[2].reason
    assert rows.shape == (2, 2048) and set(rows.unique().tolist()) == {0.0, 1.0}
    generator = AllChem.GetMorganGenerator(radius=2, fpSize=2048)
    for row, text in zip(rows, ("CCO", "c1ccccc1C(=O)O"), strict=True):
        assert row.nonzero()[:, 0].tolist() == list(generator.GetFingerprint(Chem.MolFromSmiles(text)).GetOnBits())
    assert torch.equal(ecfp(["OCC"])[0][0], rows[0])  # the same molecule, written from its other end
    assert ecfp(["?"])[0].shape == (0, 2048)


def test_ecfp_of_a_store():
    store, _ = molecules_to_store(["CCO", "CCN"])
    assert torch.equal(ecfp_of_store(store), ecfp(["CCO", "CCN"])[0])
    with pytest.raises(ValueError, match="has no SMILES"):
        ecfp_of_store(GraphStore.from_graphs([Data(x=torch.ones(2, 1), edge_index=torch.zeros(2, 0).long())]))
    store.smiles[1] = "nothing"
    with pytest.raises(ValueError, match="1 SMILES are no molecule, first row 1: not a SMILES string"):
        ecfp_of_store(store)


def some_molecules(n=120):
    store = graphcl.load_data("bbbp")
    rows = torch.randperm(len(store), generator=torch.Generator().manual_seed(0))[:n]
    return [store.smiles[i] for i in rows.tolist()], store.y[rows]


def test_descriptors_keep_the_order_of_rdkit_s_values_and_nothing_else():
    smiles, _ = some_molecules(40)
    found = descriptors_of_store(molecules_to_store(smiles)[0])
    weight = np.array([Descriptors.MolWt(Chem.MolFromSmiles(text)) for text in smiles])
    names = list(Descriptors.CalcMolDescriptors(Chem.MolFromSmiles("C")))
    assert found.shape == (40, len(names)) and len(names) > 150
    column = found[:, names.index("MolWt")].numpy()
    assert (np.argsort(column, kind="stable") == np.argsort(weight, kind="stable")).all()
    assert abs(column.mean()) < 1e-6 and found.isfinite().all() and found.abs().max() < 4
    rings = found[:, names.index("RingCount")]
    counts = torch.tensor([Descriptors.RingCount(Chem.MolFromSmiles(text)) for text in smiles])
    for count in counts.unique():
        assert len(rings[counts == count].unique()) == 1, "equal values share a rank"


def test_a_descriptor_that_is_not_finite_stands_in_the_middle(monkeypatch):
    values = iter([{"a": 1.0, "b": np.nan}, {"a": np.inf, "b": np.nan}, {"a": 3.0, "b": np.nan}])
    monkeypatch.setattr(Descriptors, "CalcMolDescriptors", lambda mol, missingVal: next(values))
    found = descriptors_of_store(molecules_to_store(["C", "CC", "CCC"])[0])
    assert found[1, 0] == 0 and found[0, 0] == -found[2, 0] < 0
    assert (found[:, 1] == 0).all()


def test_the_forest_is_scikit_learns_on_the_same_rows(monkeypatch):
    monkeypatch.setattr(fingerprints, "TREES", 20)
    smiles, y = some_molecules()
    split = Split(torch.arange(60), torch.arange(60, 90), torch.arange(90, 120))
    store = molecules_to_store(smiles, y)[0]
    scores = ecfp_forest(store, split, metric="roc_auc", seed=3)
    x = ecfp(smiles)[0].numpy()
    forest = fingerprints.RandomForestClassifier(20, random_state=3).fit(x[:60], y[:60].numpy())
    assert scores.values[0] == pytest.approx(roc_auc_score(y[90:], forest.predict_proba(x[90:])[:, 1]))
    assert ecfp_forest(store, split, metric="roc_auc", seed=3) == scores


def test_the_forest_takes_values_in_their_own_unit(monkeypatch):
    monkeypatch.setattr(fingerprints, "TREES", 20)
    smiles, _ = some_molecules()
    weight = torch.tensor([Descriptors.MolWt(Chem.MolFromSmiles(text)) for text in smiles])
    split = Split(torch.arange(60), torch.arange(60, 90), torch.arange(90, 120))
    scores = ecfp_forest(molecules_to_store(smiles, weight)[0], split, metric="rmse", seed=3)
    x = ecfp(smiles)[0].numpy()
    forest = RandomForestRegressor(20, random_state=3).fit(x[:60], weight[:60].numpy())
    expected = np.sqrt(((forest.predict(x[90:]) - weight[90:].numpy()) ** 2).mean())
    assert scores.values[0] == pytest.approx(expected, rel=0.02)  # ours grows on standardised targets
    assert set(scores.also) == {"mae", "r2"}
