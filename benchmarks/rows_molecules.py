"""What `graphcl bench` measures of molecules alone: reading SMILES, memory, and atoms that are alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice

import peers
import torch
from measure import Measured, in_fresh_process, medians, peak_of_process, reset_peak
from rows import chem_loaders, chem_run, drawn, graphs_of, molecules, on, sizes
from rows_losses import held
from torch_geometric.utils import from_smiles

from augment import DropNodes
from graphcl import fit, load_data
from graphcl.data.molecules import molecules_to_store
from graphcl.encoders import MoleculeGIN, molecule_alike
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


def pretraining_memory(device: torch.device, count: int = 2048, width: int = 300) -> Measured:
    """MB more that a process holds at its peak in an epoch of `chem_pretraining` in float32, its molecules included."""
    found = {"ours": in_fresh_process(memory_of_epoch, "ours", str(device), count, width)}
    with untuned():
        found["loop"] = in_fresh_process(memory_of_epoch, "loop", str(device), count, width)
    return Measured(found, unit="MB", data=f"{count:,} molecules, GIN 5 x {width}")


def memory_of_epoch(side: str, device_name: str, count: int, width: int) -> float:
    """The peak of a process that trains an epoch, or of its GPU, beyond what it was with the store of all molecules."""
    torch.set_num_threads(1)
    device, index = torch.device(device_name), drawn(count)
    reset_peak()
    before = held(device)
    if side == "ours":
        run = chem_run(device, molecules().subset(index), f"encoder.hidden={width}")
        fit(run, progress=False)
    else:
        loops, model = chem_loaders(graphs_of(molecules(), index)), peers.ChemGNN(width).to(device)
        peers.chem_epoch(*on(device, *loops), model, torch.optim.Adam(model.parameters(), lr=1e-3))
    return held(device) - before


@contextmanager
def every_atom() -> Iterator[None]:
    """Every atom computed, also those that are like others."""
    kept = molecule_alike.FEWEST
    molecule_alike.FEWEST = 1 << 62
    try:
        yield
    finally:
        molecule_alike.FEWEST = kept


def alike(device: torch.device, count: int = 256, width: int = 300) -> Measured:
    """GIN forward and backward on molecules that lost a fifth of their atoms: a view of pretraining."""
    return _alike(device, count, width, MoleculeGIN(width).train(), DropNodes(0.2))


def alike_finetune(device: torch.device, count: int = 32, width: int = 300) -> Measured:
    """The same on a small batch, with the dropout of fine-tuning."""
    return _alike(device, count, width, MoleculeGIN(width, dropout=0.5).train())


def alike_embed(device: torch.device, count: int = 512, width: int = 300) -> Measured:
    """Forward alone, as `embed` does it."""
    return _alike(device, count, width, MoleculeGIN(width).eval())


def _alike(
    device: torch.device, count: int, width: int, encoder: MoleculeGIN, view: DropNodes | None = None
) -> Measured:
    encoder.to(device)
    batch = molecules().batch(drawn(count), device)
    batch = batch if view is None else view(batch)

    def once() -> None:
        batch.edge_index = batch.edge_index.clone()  # nothing is known of it yet
        with torch.set_grad_enabled(encoder.training):
            h = encoder(batch)
        if encoder.training:
            encoder.zero_grad()
            h.sum().backward()

    def plain() -> None:
        with every_atom():
            once()

    found = medians({"ours": once, "every atom": plain}, device, repeats=5)
    return Measured(found, data=f"{sizes(batch)}, GIN 5 x {width}")
