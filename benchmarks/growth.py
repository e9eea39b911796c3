"""How time and memory of an epoch grow with the data. Each size runs in a process of its own.

graphs   GIN 3 x 32 on 10^3 to 10^6 molecules (BBBP over and over), the store memory mapped
nodes    GRACE on 10^4 and 10^5 nodes (copies of Cora side by side), all pairs, streamed
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from measure import MB, Measured, in_fresh_process, peak_of_process, reset_peak
from torch_geometric.data import Batch, Data

from graphcl import GraphStore, build, fit, load_config, load_data
from graphcl.state import Run

GRAPHS = (1_000, 10_000, 100_000, 1_000_000)
NODES = (10_000, 100_000)


def graphs(device: torch.device, counts: tuple[int, ...] = GRAPHS) -> Measured:
    """Seconds of an epoch for each graph, at every size."""
    series = []
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            in_fresh_process(store_molecules, count, folder)
            size = sum(file.stat().st_size for file in Path(folder).rglob("*.*")) / MB
            series.append(in_fresh_process(epoch_of_graphs, count, folder, device.type) | {"stored_mb": size})
    return _spread(series, "graphs", "BBBP over and over, GIN 3 x 32")


def nodes(device: torch.device, counts: tuple[int, ...] = NODES) -> Measured:
    """Seconds of an epoch for each pair of nodes, at every size."""
    series = [in_fresh_process(epoch_of_nodes, count, device.type) for count in counts]
    return _spread(series, "nodes", "copies of Cora, GRACE of width 128")


def _spread(series: list[dict[str, Any]], what: str, data: str) -> Measured:
    costs = [row["seconds"] / row["items"] / (row["items"] if what == "nodes" else 1) for row in series]
    sizes = ", ".join(f"{row['items']:,}" for row in series)
    sides = {"dearest": max(costs), "cheapest": min(costs)}
    return Measured(sides, unit=f"s / {what}", data=f"{sizes} {what}: {data}", details=series)


def store_molecules(count: int, folder: str) -> None:
    """Save a store of so many molecules."""
    store = load_data("bbbp")
    store = GraphStore(store.x, store.src, store.dst, store.node_ptr, store.edge_ptr, edge_attr=store.edge_attr)
    store.subset(torch.arange(count) % len(store)).save(Path(folder) / "store")


def epoch_of_graphs(count: int, folder: str, device: str) -> dict[str, Any]:
    """Time and memory of an epoch."""
    torch.set_num_threads(1)
    store = GraphStore.open(Path(folder) / "store")
    drop = "{name: drop_nodes, rate: 0.1}"
    settings = [
        *("encoder={name: molecule_gin, hidden: 32, layers: 3, jk: cat}", f"views=[[{drop}], [{drop}]]"),
        *("data.features=given", "data.batch_size=128", "train.epochs=1", f"train.device={device}"),
    ]
    fit(build(load_config("graphcl", [*settings, "train.max_steps=8"]), store), progress=False)
    return _epochs(build(load_config("graphcl", settings), store), count, 5 if count <= 10_000 else 1)


def epoch_of_nodes(count: int, device: str) -> dict[str, Any]:
    """Time and memory of an epoch."""
    torch.set_num_threads(1)
    cora = load_data("cora", normalize=True)
    cora = Data(x=cora.x, edge_index=cora.edge_index)
    copies = Batch.from_data_list([cora] * -(-count // cora.num_nodes))
    graph = Data(x=copies.x, edge_index=copies.edge_index).subgraph(torch.arange(count))
    settings = ["encoder.hidden=128", "train.epochs=1", f"train.device={device}", "data.normalize=false"]
    fit(build(load_config("grace", settings), cora), progress=False)
    return _epochs(build(load_config("grace", settings), graph), count, 3 if count <= 10_000 else 1)


def _epochs(run: Run, count: int, repeats: int) -> dict[str, Any]:
    """The median epoch's seconds, and MB at the peak: before it, and more than that in it."""
    before = reset_peak()
    seconds = statistics.median(fit(run, progress=False)["seconds"] for _ in range(repeats))
    return {"items": count, "seconds": seconds, "before_mb": before, "more_mb": peak_of_process() - before}


def draw(series: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Time and memory over the number of items, on logarithmic axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (time, memory) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for name, rows in series.items():
        items = [row["items"] for row in rows]
        time.plot(items, [row["seconds"] for row in rows], "o-", label=name)
        memory.plot(items, [row["before_mb"] + row["more_mb"] for row in rows], "o-", label=name)
    for axes, title in ((time, "seconds of an epoch"), (memory, "MB at the peak")):
        axes.set(xscale="log", yscale="log", xlabel="items", title=title)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)
