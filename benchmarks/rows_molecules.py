"""What `graphcl bench` measures of molecules: reading SMILES, and the memory that the molecules then take."""

from __future__ import annotations

from itertools import cycle, islice

import torch
from measure import Measured, in_fresh_process, medians, peak_of_process, reset_peak
from rows import molecules
from torch_geometric.utils import from_smiles

from graphcl import load_data
from graphcl.data.molecules import molecules_to_store
from graphcl.process import untuned


def smiles(count: int) -> list[str]:
    """So many SMILES of the bundled BBBP, all again if there are not that many."""
    known = load_data("bbbp").smiles
    assert known is not None
    return list(islice(cycle(known), count))


def parsing(device: torch.device, count: int = 500) -> Measured:
    """SMILES to graphs in one process: ours with both feature sets, PyG's loop."""
    texts = smiles(count)
    sides = {
        "2+2": lambda: molecules_to_store(texts),
        "9+3": lambda: molecules_to_store(texts, features="ogb"),
        "from_smiles": lambda: [from_smiles(text) for text in texts],
    }
    return Measured(medians(sides, device, repeats=3), data=f"{count:,} SMILES of {molecules().name}")


def molecule_memory(device: torch.device, count: int = 20_000) -> Measured:
    """MB more that a process holds at its peak with so many molecules: as a store, and as a list of PyG's Data."""
    found = {"ours": in_fresh_process(memory_of, "ours", count)}
    with untuned():
        found["list of Data"] = in_fresh_process(memory_of, "list of Data", count)
    return Measured(found, unit="MB", data=f"{count:,} molecules")


def memory_of(side: str, count: int) -> float:
    """The peak of a process that reads the molecules, beyond what it was before."""
    texts = smiles(count)
    before = reset_peak()
    held = molecules_to_store(texts) if side == "ours" else [from_smiles(text) for text in texts]
    assert held
    return peak_of_process() - before
