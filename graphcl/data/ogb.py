"""OGB's molecules: the 9 + 3 categorical features; the data sets `ogbg-mol*` with their splits and scores.

Paper:   Hu et al., 2020, "Open Graph Benchmark", arXiv:2005.00687
Differs: the features are those of `ogb.utils.features`, by table; a bond stereo that it does not list (atropisomers),
         where it stops, gets the number after the last. The data sets are read by the ogb package's reader of raw
         files, not by its PyG data set, which keeps a pickle beside them.

A data set lies in `ogb/ogbg_molhiv` (and so on) under GRAPHCL_DATA or GRAPHCL_CACHE, as OGB's archive has it: raw/,
split/, mapping/, RELEASE_v1.txt. Else it is downloaded to the latter from where the ogb package has it.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import shutil
import socket
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from rdkit import Chem
from torch import Tensor

from graphcl.data.cache import cache_folder, cached, store_place
from graphcl.data.molecule_files import read_molecules
from graphcl.data.molecules import MoleculeArrays, MoleculeFeatures, Rejected, bonds_of
from graphcl.data.splits import Split
from graphcl.data.store import GraphStore

# Categories of the columns. The last one of each is "other" but for ring, aromatic, stereo and conjugated.
ATOM_DIMS = (119, 5, 12, 12, 10, 6, 6, 2, 2)
BOND_DIMS = (5, 6, 2)

_CHIRALITY = {
    Chem.ChiralType.CHI_UNSPECIFIED: 0,
    Chem.ChiralType.CHI_TETRAHEDRAL_CW: 1,
    Chem.ChiralType.CHI_TETRAHEDRAL_CCW: 2,
    Chem.ChiralType.CHI_OTHER: 3,
}
_HYBRIDIZATION = {
    Chem.HybridizationType.SP: 0,
    Chem.HybridizationType.SP2: 1,
    Chem.HybridizationType.SP3: 2,
    Chem.HybridizationType.SP3D: 3,
    Chem.HybridizationType.SP3D2: 4,
}
_BOND = {Chem.BondType.SINGLE: 0, Chem.BondType.DOUBLE: 1, Chem.BondType.TRIPLE: 2, Chem.BondType.AROMATIC: 3}
_STEREO = {
    Chem.BondStereo.STEREONONE: 0,
    Chem.BondStereo.STEREOZ: 1,
    Chem.BondStereo.STEREOE: 2,
    Chem.BondStereo.STEREOCIS: 3,
    Chem.BondStereo.STEREOTRANS: 4,
    Chem.BondStereo.STEREOANY: 5,
}


def ogb_arrays(molecule: Chem.Mol) -> MoleculeArrays:
    """A molecule with OGB's features: x [n, 9], edge_attr [e, 3].

    Atoms: number, chirality, degree, formal charge, hydrogens, radical electrons, hybridization, aromatic, in a ring;
    bonds: type, stereo, conjugated.
    """
    atoms = []
    for i in range(molecule.GetNumAtoms()):
        atom = molecule.GetAtomWithIdx(i)
        number, charge = atom.GetAtomicNum(), atom.GetFormalCharge()
        atoms.append(
            (
                number - 1 if 1 <= number <= 118 else 118,
                _CHIRALITY.get(atom.GetChiralTag(), 4),
                min(atom.GetTotalDegree(), 11),
                charge + 5 if -5 <= charge <= 5 else 11,
                min(atom.GetTotalNumHs(), 9),
                min(atom.GetNumRadicalElectrons(), 5),
                _HYBRIDIZATION.get(atom.GetHybridization(), 5),
                atom.GetIsAromatic(),
                atom.IsInRing(),
            )
        )
    rows = []
    for bond in bonds_of(molecule):
        i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        kind = _BOND.get(bond.GetBondType(), 4), _STEREO.get(bond.GetStereo(), 6), bond.GetIsConjugated()
        rows += [(i, j, *kind), (j, i, *kind)]  # target, source
    edges = np.array(sorted(rows), dtype=np.int32).reshape(-1, 5)
    x = np.array(atoms, dtype=np.uint8).reshape(-1, 9)
    return MoleculeArrays(x, edges[:, 1::-1].T, edges[:, 2:].astype(np.uint8))


# --- data sets --------------------------------------------------------------------------------------------------------

_READER = "ogb 1"  # to be raised with every change of what is read
_TIMEOUT = 60  # seconds without an answer


def ogb_store(name: str) -> GraphStore:
    """The data set `name` ("ogbg-molhiv", ...) with OGB's features and labels, `smiles`, and molecule ids as `names`.

    y: [B] classes (int64, -1: missing) or values for one task, [B, T] float for several, NaN: missing. Bonds are there
    in both directions. Raises ValueError if it is neither at hand nor can be downloaded, or is not as OGB writes it.
    """
    folder = _folder(name)
    files = [*sorted(folder.glob("raw/*")), folder / "mapping" / "mol.csv.gz"]
    return cached(store_place(name, [file for file in files if file.is_file()], _READER), name, lambda _: [_read(name)])


class OgbMolecules(NamedTuple):
    """A data set by its SMILES: of its n rows the B that RDKit reads as molecules today, and those that it refuses."""

    name: str
    store: GraphStore  # y: [B, T] float, NaN: missing; SMILES and names
    rejected: list[Rejected]
    targets: tuple[str, ...]  # T names
    split: Split  # OGB's, as rows of the store
    rows: Tensor  # [B], of the data set
    labels: Tensor  # [n, T], of all rows
    test: Tensor  # OGB's test part, as rows of the data set


def ogb_molecules(
    name: str, features: MoleculeFeatures = "benchmark", *, strict: bool = False, progress: bool = False
) -> OgbMolecules:
    """The molecules of the data set `name`, with features from their SMILES, or with OGB's own arrays ("ogb").

    With either features a row is left out whose SMILES is no molecule, so both have the same ones.  targets: the
    columns of mapping/mol.csv.gz beside smiles and mol_id if there is one for each task, else y0, y1 ...  strict,
    progress: see `read_molecules`. Raises ValueError as it and `ogb_store` do, and for a set without SMILES.
    """
    whole, path = ogb_store(name), _folder(name) / "mapping" / "mol.csv.gz"
    assert whole.y is not None
    if not path.is_file():
        raise ValueError(f"{path} is missing, which has the SMILES; fetch the archive again")
    with _readable(path):
        columns = list(pd.read_csv(path, nrows=0).columns)
    ids = "mol_id" if "mol_id" in columns else None
    found, rejected = read_molecules(path, smiles="smiles", ids=ids, strict=strict, progress=progress, name=name)
    n = len(whole)
    if len(found) + len(rejected) != n:
        raise ValueError(f"{path} has {len(found) + len(rejected)} rows for {n} graphs; fetch the archive again")
    refused = {one.row for one in rejected}
    rows = torch.tensor([row for row in range(n) if row not in refused])
    y = whole.y if whole.y.dim() == 2 else whole.y[:, None]
    labels = y if y.is_floating_point() else y.float().masked_fill(y < 0, torch.nan)
    others = tuple(column for column in columns if column not in ("smiles", "mol_id"))
    targets = others if len(others) == labels.shape[1] else tuple(f"y{i}" for i in range(labels.shape[1]))
    store = found if features == "benchmark" else whole.subset(rows)
    store = store._like(y=labels[rows], smiles=found.smiles, names=found.names)
    place = torch.full((n,), -1).scatter_(0, rows, torch.arange(len(rows)))
    official = ogb_split(name, n)
    split = Split(*(here[here >= 0] for here in (place[part] for part in official)))
    return OgbMolecules(name, store, rejected, targets, split, rows, labels, official.test)


def ogb_scores(data: OgbMolecules, predictions: Tensor) -> dict[str, list[float]]:
    """Scores by OGB's Evaluator on all rows of OGB's test part, by its name of the metric.

    predictions: [S, t, T], several ones for the t molecules `data.split.test`. What has none, as its row is no molecule
    or where it is NaN, counts with the mean of the target over the train molecules (without any label there, 0).
    """
    assert data.store.y is not None
    guess = data.store.y[data.split.train].double().nanmean(0).nan_to_num()
    found: dict[str, list[float]] = {}
    for one in predictions:
        made = guess.expand(data.labels.shape).clone()
        made[data.rows[data.split.test]] = torch.where(one.isnan(), guess, one.double())
        for metric, value in ogb_score(data.name, data.labels[data.test], made[data.test]).items():
            found.setdefault(metric, []).append(value)
    return found


def ogb_split(name: str, graphs: int) -> Split:
    """OGB's own split of the data set `name`, of `graphs` graphs. Raises ValueError if it is for another number."""
    folder = _folder(name) / "split" / _about(name)["split"]
    parts = []
    for part in ("train", "valid", "test"):
        with _readable(folder / f"{part}.csv.gz"):
            parts.append(torch.from_numpy(_table(folder / f"{part}.csv.gz")[:, 0].astype(np.int64)))
    if not torch.equal(torch.cat(parts).sort().values, torch.arange(graphs)):
        raise ValueError(
            f"{folder}: the split names {sum(map(len, parts))} graphs, the data has {graphs}; the split is for the "
            f"whole of {name}, every graph once"
        )
    return Split(*parts)


def ogb_score(name: str, y_true: Tensor | NDArray[Any], y_pred: Tensor | NDArray[Any]) -> dict[str, float]:
    """Score of predictions by OGB's Evaluator for the data set `name`: {"rocauc": ...}, {"ap": ...} or {"rmse": ...}.

    y_true, y_pred: [B] or [B, T], labels and scores (logits will do) or values; NaN, and -1 among integers, is missing.
    Raises ValueError for shapes and labels that the Evaluator refuses.
    """
    known, scores = torch.as_tensor(y_true).detach().cpu(), torch.as_tensor(y_pred).detach().cpu().double()
    values = known.double() if known.is_floating_point() else known.double().masked_fill(known < 0, torch.nan)
    pair = {"y_true": values, "y_pred": scores}
    pair = {key: value.unsqueeze(1) if value.dim() == 1 else value for key, value in pair.items()}
    if scores.isnan().any():
        raise ValueError(f"{name}: a prediction is NaN; every graph needs a number")
    _about(name)
    try:
        found = _package("ogb.graphproppred").Evaluator(name).eval(pair)
    except RuntimeError as error:
        raise ValueError(f"{name}: OGB's evaluator: {error}") from None
    return {key: float(value) for key, value in found.items()}


def _package(name: str) -> Any:
    """A module of the ogb package, imported without its look for a newer version of itself."""
    if "ogb" in sys.modules:
        return importlib.import_module(name)
    held, set_before = sys.modules.get("outdated"), os.environ.get("OUTDATED_IGNORE")
    sys.modules["outdated"] = None  # type: ignore[assignment]  # so ogb takes it for missing, and starts no thread
    try:
        return importlib.import_module(name)
    finally:
        del sys.modules["outdated"]
        if held is not None:
            sys.modules["outdated"] = held
        os.environ.pop("OUTDATED_IGNORE", None)
        if set_before is not None:
            os.environ["OUTDATED_IGNORE"] = set_before


def _about(name: str) -> dict[str, str]:
    """What the ogb package knows of the data set."""
    master = Path(_package("ogb.graphproppred").__file__).with_name("master.csv")
    table = pd.read_csv(master, index_col=0, keep_default_na=False, dtype=str)
    molecules = [known for known in table if str(known).startswith("ogbg-mol")]
    if name not in molecules:
        raise ValueError(f"{name!r} is no molecule data set of OGB; known: {', '.join(molecules)}")
    return {str(key): str(value) for key, value in table[name].items()}


def _folder(name: str) -> Path:
    about, inner = _about(name), Path("ogb") / name.replace("-", "_")
    given = os.environ.get("GRAPHCL_DATA")
    for root in [*([Path(given)] if given else []), cache_folder()]:
        if (root / inner / "raw").is_dir():
            release = root / inner / f"RELEASE_v{about['version']}.txt"
            if not release.is_file():
                raise ValueError(
                    f"{root / inner}: not version {about['version']}, as {release.name} is missing; fetch it"
                )
            return root / inner
    _download(about["url"], about["download_name"], cache_folder() / inner, name)
    return cache_folder() / inner


def _download(url: str, inner: str, target: Path, name: str) -> None:
    """Fetch OGB's archive by the ogb package, then rename: a killed download leaves no half set."""
    fetch, waited = _package("ogb.utils.url"), socket.getdefaulttimeout()
    fetching = None
    socket.setdefaulttimeout(_TIMEOUT)  # ogb's request has none of its own
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fetching = Path(tempfile.mkdtemp(dir=target.parent, prefix=".download."))
        fetch.extract_zip(fetch.download_url(url, str(fetching), log=False), str(fetching), log=False)
        os.rename(fetching / inner, target)
    except (OSError, RuntimeError, zipfile.BadZipFile) as error:
        given = os.environ.get("GRAPHCL_DATA")
        looked = f"looked in {given}/ogb/{target.name} and downloaded" if given else "downloaded"
        raise ValueError(
            f"data set {name!r}: {looked} from {url}, which failed: {error}; connect to the network, or unpack the "
            f"archive as {target}"
        ) from None
    finally:
        socket.setdefaulttimeout(waited)
        if fetching is not None:
            shutil.rmtree(fetching, ignore_errors=True)


def _read(name: str) -> GraphStore:
    folder, about = _folder(name), _about(name)
    read = _package("ogb.io.read_graph_raw").read_csv_graph_raw
    with _readable(folder), _silent():
        graphs = read(str(folder / "raw"), add_inverse_edge=about["add_inverse_edge"] == "True")
        labels = torch.from_numpy(_table(folder / "raw" / "graph-label.csv.gz").astype(np.float32))
        mapping = folder / "mapping" / "mol.csv.gz"
        texts = pd.read_csv(mapping, dtype=str, keep_default_na=False) if mapping.is_file() else pd.DataFrame()
        x, edges, edge_attr = (
            torch.from_numpy(np.concatenate([graph[key] for graph in graphs], axis=axis))
            for key, axis in (("node_feat", 0), ("edge_index", 1), ("edge_feat", 0))
        )
        if x.is_floating_point() or edge_attr.is_floating_point() or (x.shape[1], edge_attr.shape[1]) != (9, 3):
            raise ValueError(f"atoms have {x.shape[1]} and bonds {edge_attr.shape[1]} features, not 9 and 3 integers")
        if labels.shape != (len(graphs), int(about["num tasks"])):
            raise ValueError(f"labels are {list(labels.shape)}, not {[len(graphs), int(about['num tasks'])]}")
        if labels.shape[1] == 1:
            labels = labels[:, 0]
            if "classification" in about["task type"]:
                labels = labels.nan_to_num(nan=-1).long()
        nodes, bonds = (
            [graph[key].shape[axis] for graph in graphs] for key, axis in (("node_feat", 0), ("edge_index", 1))
        )
        return GraphStore(
            x=x,
            src=edges[0],
            dst=edges[1],
            edge_attr=edge_attr,
            y=labels,
            node_ptr=torch.tensor([0, *nodes]).cumsum(0),
            edge_ptr=torch.tensor([0, *bonds]).cumsum(0),
            smiles=list(texts["smiles"]) if "smiles" in texts else None,
            names=list(texts["mol_id"]) if "mol_id" in texts else None,
            name=name,
        ).check()


def _table(path: Path) -> NDArray[Any]:
    values: NDArray[Any] = pd.read_csv(path, compression="gzip", header=None).to_numpy()
    return values


@contextlib.contextmanager
def _readable(place: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # pandas and ogb raise whatever a damaged file makes them raise
        raise ValueError(
            f"{place}: not as OGB writes it ({type(error).__name__}: {error!s:.200}); fetch the archive again"
        ) from error


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without ogb's messages and bars."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
