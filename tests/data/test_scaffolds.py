"""The scaffold splits against their rules, written plainly."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from rdkit.Chem.Scaffolds import MurckoScaffold

from graphcl.data.molecules import molecules_to_store
from graphcl.data.scaffolds import _scaffold, random_scaffold_split, scaffold_split
from graphcl.data.splits import make_splits


def scaffold(smiles: str) -> str:
    return MurckoScaffold.MurckoScaffoldSmiles(smiles=smiles, includeChirality=True)


def check_split(smiles, split, ratios=(0.8, 0.1, 0.1)):
    """The rule, written as taking the largest remaining scaffold, of equal ones the one that begins last."""
    names = [scaffold(s) for s in smiles]
    sizes, first = Counter(names), {}
    for i, name in enumerate(names):
        first.setdefault(name, i)
    parts = ([], [], [])
    while sizes:
        name = max(sizes, key=lambda name: (sizes[name], first[name]))
        rows = [i for i, other in enumerate(names) if other == name]
        del sizes[name]
        if len(parts[0]) + len(rows) <= ratios[0] * len(smiles):
            parts[0].extend(rows)
        elif len(parts[0]) + len(parts[1]) + len(rows) <= (ratios[0] + ratios[1]) * len(smiles):
            parts[1].extend(rows)
        else:
            parts[2].extend(rows)
    assert [part.tolist() for part in split] == [sorted(part) for part in parts]


RINGS = ["C1CC1", "C1CCC1", "C1CCCC1", "c1ccccc1", "c1ccncc1", "C1CCOCC1", "c1ccsc1", "C1CCNC1", "c1ccoc1"]
MANY = [RINGS[i % 9 if i % 5 else 3] + "C" * (i % 4 + 1) for i in range(60)] + ["CCO", "CCN", "N1[C@@H](C)C1C"]


def test_scaffold_split_is_the_benchmarks_rule():
    for ratios in ((0.8, 0.1, 0.1), (0.5, 0.25, 0.25), (0.9, 0.0, 0.1)):
        check_split(MANY, scaffold_split(MANY, ratios), ratios)


def test_no_scaffold_is_in_two_parts_and_no_molecule_is_lost():
    split = scaffold_split(MANY)
    assert torch.equal(torch.cat(split).sort().values, torch.arange(len(MANY)))
    found = [{scaffold(MANY[i]) for i in part.tolist()} for part in split]
    assert not (found[0] & found[1] or found[0] & found[2] or found[1] & found[2])
    assert all(part.dtype == torch.int64 and len(part) for part in split)
    assert all(torch.equal(a, b) for a, b in zip(split, scaffold_split(MANY), strict=True))


def test_large_molecules_take_no_time():
    """Of which RDKit would take minutes to find the scaffold."""
    chain, ring, other = "C" * 3000, "C1" + "C" * 900 + "1", "C1" + "C" * 901 + "1"
    assert [_scaffold(text) for text in (chain, "CCO", ring, other)] == ["", "", ring, other]
    split = scaffold_split([chain, ring, ring, other, "CCO", "CCO"], (0.5, 0.25, 0.25))
    assert [part.tolist() for part in split] == [[0, 4, 5], [3], [1, 2]]


def test_molecules_without_rings_share_one_scaffold():
    smiles = ["CCO", "CCC"] + [ring + "C" for ring in RINGS]
    split = scaffold_split(smiles, (0.6, 0.2, 0.2))
    assert {0, 1} <= set(split.train.tolist())


def test_mistakes_in_a_split_are_named():
    with pytest.raises(ValueError, match=r"ratios must be three shares .* sum to 1, got \(0\.8, 0\.1, 0\.2\)"):
        scaffold_split(MANY, (0.8, 0.1, 0.2))
    with pytest.raises(ValueError, match="molecule 1, 'none!': not a SMILES string; leave it out before splitting"):
        scaffold_split(["CC", "none!"])
    with pytest.raises(
        ValueError, match="train gets none of 3 molecules, as they have only 1 scaffolds; split at random"
    ):
        scaffold_split(["CCO", "CCC", "CCN"])


@pytest.mark.parametrize("ratios", [(0.8, 0.1, 0.1), (0.5, 0.25, 0.25), (0.9, 0.0, 0.1)])
@pytest.mark.parametrize("seed", [0, 1, 7])
def test_random_scaffold_split_is_the_benchmarks_rule(seed, ratios):
    """The rule for the order that was drawn: val while there is room, then test, the rest is train."""
    names = [scaffold(s) for s in MANY]
    order = list(dict.fromkeys(names))
    drawn = torch.randperm(len(order), generator=torch.Generator().manual_seed(seed)).tolist()
    parts = {"train": [], "val": [], "test": []}
    for name in (order[i] for i in drawn):
        rows = [i for i, other in enumerate(names) if other == name]
        fits = [
            part
            for part, ratio in (("val", ratios[1]), ("test", ratios[2]))
            if len(parts[part]) + len(rows) <= int(ratio * len(MANY))
        ]
        parts[fits[0] if fits else "train"] += rows
    if (ratios[1] and not parts["val"]) or not parts["test"]:
        with pytest.raises(ValueError, match=r"scaffold split: \w+ gets none of 63 molecules"):
            random_scaffold_split(MANY, seed, ratios)
        return
    split = random_scaffold_split(MANY, seed, ratios)
    assert [part.tolist() for part in split] == [sorted(parts[part]) for part in ("train", "val", "test")]


def test_random_scaffold_splits_keep_scaffolds_together_and_differ_by_seed():
    smiles = [RINGS[i % 9] + "C" * (i // 9) + RINGS[i % 8] for i in range(120)]
    splits = [random_scaffold_split(smiles, seed) for seed in range(3)]
    for split in splits:
        assert torch.equal(torch.cat(split).sort().values, torch.arange(len(smiles)))
        found = [{scaffold(smiles[i]) for i in part.tolist()} for part in split]
        assert not (found[0] & found[1] or found[0] & found[2] or found[1] & found[2])
        assert len(split.val) <= 12 and len(split.test) <= 12
    assert len({tuple(split.test.tolist()) for split in splits}) == 3
    assert all(torch.equal(a, b) for a, b in zip(splits[1], random_scaffold_split(smiles, 1), strict=True))

    store, _ = molecules_to_store(smiles)
    made = make_splits(store, "random_scaffold", seed=0, repeats=3)  # no labels needed
    assert all(
        torch.equal(a, b) for one, other in zip(made, splits, strict=True) for a, b in zip(one, other, strict=True)
    )
    (fixed,) = make_splits(store, "scaffold", repeats=3, ratios=(0.6, 0.2, 0.2))
    assert all(torch.equal(a, b) for a, b in zip(fixed, scaffold_split(smiles, (0.6, 0.2, 0.2)), strict=True))


def test_shares_of_a_split():
    store, _ = molecules_to_store(["C" * (i + 1) for i in range(50)], torch.arange(50) % 2)
    sizes = [[len(part) for part in make_splits(store, "random", ratios=r)[0]] for r in (None, (0.8, 0.1, 0.1))]
    assert sizes == [[5, 5, 40], [40, 5, 5]]
    with pytest.raises(
        ValueError, match=r"data\.ratios=\(0\.8, 0\.1, 0\.1\) is for the splits random and those by scaffold, not kfold"
    ):
        make_splits(store, "kfold", repeats=5, ratios=(0.8, 0.1, 0.1))
    with pytest.raises(
        ValueError, match=r"ratios must be three positive shares that sum to 1, got \(0\.8, 0\.1, 0\.2\)"
    ):
        make_splits(store, "random", ratios=(0.8, 0.1, 0.2))
    with pytest.raises(ValueError, match=r"data\.split=random_scaffold needs molecules \(SMILES\)"):
        make_splits(store._like(smiles=None), "random_scaffold")


@pytest.mark.parametrize("kind", ["scaffold", "random_scaffold", "scaffold_rate"])
def test_of_one_target_rows_without_a_label_are_left_out_of_the_parts(kind):
    smiles = [RINGS[i % 9] + "C" * (i // 9) + RINGS[i % 8] for i in range(120)]
    store, _ = molecules_to_store(smiles)
    store.y = torch.arange(120) % 2
    (whole,) = make_splits(store, kind, rate=1.0)
    for y, unknown in ((store.y.clone(), -1), (store.y.float(), float("nan"))):
        y[::7] = unknown
        store.y = y
        (found,) = make_splits(store, kind, rate=1.0)
        for part, known in zip(whole, found, strict=True):
            assert known.tolist() == [row for row in part.tolist() if row % 7]
    if kind != "scaffold_rate":
        store.y = torch.full((120,), -1)  # no labels at all: a corpus
        assert all(torch.equal(a, b) for a, b in zip(make_splits(store, kind)[0], whole, strict=True))
