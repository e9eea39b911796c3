"""Molecules without a network: extended-connectivity fingerprints, RDKit's descriptors, a random forest.

What a chemist would run instead of pretraining; on some sets of the molecule benchmark it is the better choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.special import ndtri
from scipy.stats import rankdata
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from torch import Tensor

from graphcl.data.store import GraphStore
from graphcl.evaluate.ridge import values_by_setting
from graphcl.evaluate.scores import METRICS, Scores, evaluate

FOREST_PROTOCOL = "ecfp-forest/clean/1"
TREES = 200


def ecfp(smiles: Sequence[str], *, radius: int = 2, bits: int = 2048) -> tuple[Tensor, list[Any]]:
    """Extended-connectivity fingerprints [B, bits] of 0 and 1 (float32), and the rows that are no molecule, left out.

    Source: Rogers and Hahn, 2010, "Extended-Connectivity Fingerprints"; RDKit's Morgan generator, radius 2 is ECFP4.
    """
    from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator  # only molecules need rdkit

    from graphcl.data.molecules import Rejected, parse_smiles

    generator = GetMorganGenerator(radius=radius, fpSize=bits)
    rows, rejected = [], []
    for row, text in enumerate(smiles):
        try:
            rows.append(torch.from_numpy(generator.GetFingerprintAsNumPy(parse_smiles(text))))
        except ValueError as error:
            rejected.append(Rejected(row, str(text), str(error)))
    return torch.stack(rows).float() if rows else torch.zeros(0, bits), rejected


def ecfp_of_store(source: GraphStore) -> Tensor:
    """ECFP of the molecules of a store, [B, 2048]; ValueError where there are none."""
    rows, rejected = ecfp(smiles_of(source))
    if rejected:
        first = rejected[0]
        raise ValueError(
            f"{source.name}: {len(rejected)} SMILES are no molecule, first row {first.row}: {first.reason}; "
            "make the store with molecules_to_store, which leaves them out"
        )
    return rows


def descriptors_of_store(source: GraphStore) -> Tensor:
    """RDKit's 2D descriptors of the molecules of a store, [B, about 200], each made normal by its ranks.

    Their ranges differ by many powers of ten and some overflow, so only the order counts: equal values share a rank,
    a value that is not finite stands in the middle. Ranks are among all molecules of the store, without labels.
    """
    from rdkit import rdBase
    from rdkit.Chem.Descriptors import CalcMolDescriptors

    from graphcl.data.molecules import parse_smiles

    with rdBase.BlockLogs():
        rows = [list(CalcMolDescriptors(parse_smiles(text), missingVal=np.nan).values()) for text in smiles_of(source)]
    raw = np.array(rows, dtype=np.float64)
    raw[~np.isfinite(raw)] = np.nan
    ranks = rankdata(raw, axis=0, nan_policy="omit")
    known = (~np.isnan(raw)).sum(0)
    return torch.from_numpy(np.nan_to_num(ndtri((ranks - 0.5) / np.maximum(known, 1)))).float()


def ecfp_forest(source: GraphStore, split: Any, *, metric: str = "accuracy", seed: int = 0) -> Scores:
    """Random forest of 200 trees on ECFP4 in 2048 bits; nothing is chosen, so validation only reports.

    source.y: classes, tasks or values as `linear_probe` and `ridge` take them; metric: theirs.
    Source: Breiman, 2001, "Random Forests"; scikit-learn's defaults but for the number of trees.
    """
    x = ecfp_of_store(source)

    def classes(train: Tensor, y: Tensor, other: Tensor) -> Tensor:
        # One bit in fifty is set: of sparse rows the same trees grow several times faster. With values they do not.
        forest = RandomForestClassifier(TREES, random_state=seed).fit(csr_matrix(train.numpy()), y.numpy())
        return torch.from_numpy(forest.predict_proba(csr_matrix(other.numpy())))[None]

    def values(train: Tensor, y: Tensor, other: Tensor) -> Tensor:
        forest = RandomForestRegressor(TREES, random_state=seed).fit(train.numpy(), y.numpy())
        return torch.from_numpy(forest.predict(other.numpy()))[None]

    if metric in METRICS:
        return evaluate("random forest on ECFP", classes, x, source.y, split, metric, FOREST_PROTOCOL)
    return values_by_setting("random forest on ECFP", values, x, source.y, split, metric, FOREST_PROTOCOL)


def smiles_of(source: GraphStore) -> Sequence[str]:
    """The SMILES of a store; ValueError where it has none."""
    if source.smiles is None:
        raise ValueError(f"{source.name} has no SMILES; fingerprints and descriptors are of molecules")
    return source.smiles
