"""What `graphcl bench` measures: functions of a device that run ours and theirs in turns, at sizes of one's choice."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import peers
import torch
import torch.nn.functional as F
from measure import Measured, medians, threads
from rows_losses import real_losses
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GINConv
from torch_geometric.utils import to_undirected

from augment import DropNodes, MaskAttributes, PerturbEdges, Subgraph
from augment import _native as view_kernels
from graphcl import GraphStore, build, fit, load_config, load_data
from graphcl.data import _native as store_kernels
from graphcl.data.sources import cache_folder
from graphcl.encoders.aggregate import csr_of, neighbour_sum
from graphcl.encoders.convs import GINConv as OurGINConv
from graphcl.objectives import infonce
from graphcl.process import multiplies_bf16, usable_cores
from graphcl.state import Run
from graphcl.trainer import make_optimizer

CPU = torch.device("cpu")


# --- data -------------------------------------------------------------------------------------------------------------


def bare(store: GraphStore, name: str, x: Tensor | None = None) -> GraphStore:
    """The graphs alone, with other features if given: no labels, from which splits would be made, and no strings."""
    parts = (store.x if x is None else x, store.src, store.dst, store.node_ptr, store.edge_ptr)
    return GraphStore(*parts, edge_attr=store.edge_attr, name=name)


@cache
def molecules() -> GraphStore:
    """The bundled BBBP."""
    return bare(load_data("bbbp"), "BBBP")


@cache
def tu_graphs() -> GraphStore:
    """NCI1 if it is on this machine; else BBBP twice, its atom types one-hot in as many columns."""
    roots = [Path(os.environ["GRAPHCL_DATA"])] if os.environ.get("GRAPHCL_DATA") else []
    if any((root / "TUDataset/NCI1/raw/NCI1_graph_indicator.txt").is_file() for root in [*roots, cache_folder()]):
        return bare(load_data("nci1"), "NCI1")  # never downloaded for this
    store = molecules()
    store = bare(store, "BBBP", F.one_hot(store.x[:, 0].long().clamp(max=36), 37).float())
    return store.subset(torch.arange(len(store)).repeat(2))


def drawn(count: int) -> Tensor:
    """Numbers of so many molecules in a random order; all again if there are not that many."""
    rows = torch.cat([torch.randperm(len(molecules())) for _ in range(count // len(molecules()) + 1)])
    return rows[:count]


def graphs_of(store: GraphStore, index: Tensor) -> list[Data]:
    """The graphs one by one, without labels."""
    return [store[i] for i in index.tolist()]


@cache
def skewed(nodes: int, edges: int) -> Tensor:
    """An undirected graph [2, about `edges`] whose degrees follow a power law, sorted by target."""
    hubs = torch.multinomial(torch.arange(1.0, nodes + 1) ** -0.6, edges // 2, replacement=True)
    ends = torch.stack([torch.randint(nodes, (edges // 2,)), torch.randperm(nodes)[hubs]])
    both = to_undirected(ends[:, ends[0] != ends[1]], num_nodes=nodes)
    return both.flip(0).contiguous()  # to_undirected sorts by the first row


def volume(data: Data) -> float:
    """Bytes that a copy of all tensors reads and writes."""
    return 2.0 * sum(value.numel() * value.element_size() for _, value in data if isinstance(value, Tensor))


def sizes(data: Data) -> str:
    """`256 molecules, 6,160 nodes, 13,296 edges`."""
    return f"{data.num_graphs} molecules, {data.num_nodes:,} nodes, {data.num_edges:,} edges"


# --- views and batches ------------------------------------------------------------------------------------------------


@contextmanager
def torch_only() -> Iterator[None]:
    """Without the compiled kernels, as on a machine that has no numba."""
    modules = (view_kernels, store_kernels)
    kept = [module.native for module in modules]
    for module in modules:
        module.native = lambda: None
    try:
        yield
    finally:
        for module, native in zip(modules, kept, strict=True):
            module.native = native


def both_ways(call: Callable[[], object], device: torch.device) -> dict[str, Callable[[], object]]:
    """The call by torch alone, and with the compiled kernels where they can be used."""

    def plain() -> object:
        with torch_only():
            return call()

    native = device.type == "cpu" and view_kernels.native() is not None
    return {"torch": plain} | ({"native": call} if native else {})


def view_against_loop(
    view: Any, loop: Callable[..., Data], rate: float, count: int, device: torch.device, repeats: int = 5
) -> Measured:
    """A view of a batch that is there already, against the loop over its graphs (not collated again)."""
    store, rng = molecules(), np.random.default_rng(0)
    index = drawn(count)
    batch, graphs = store.batch(index, device), graphs_of(store, index)
    sides = both_ways(lambda: view(batch), device) | {"loop": lambda: [loop(graph, rate, rng) for graph in graphs]}
    return Measured(medians(sides, device, repeats), data=sizes(batch), work=("copy", volume(batch)))


def drop_nodes(device: torch.device, count: int = 256) -> Measured:
    """Drop a fifth of the nodes of every graph."""
    return view_against_loop(DropNodes(0.2), peers.chem_drop_nodes, 0.2, count, device)


def subgraph(device: torch.device, count: int = 2048) -> Measured:
    """Keep a connected part of four fifths; the loop means to, and keeps a star."""
    return view_against_loop(Subgraph(0.8), peers.chem_subgraph, 0.8, count, device, repeats=3)


def perturb_edges(device: torch.device, count: int = 256) -> Measured:
    """Drop a fifth of the edges and draw as many new ones."""
    return view_against_loop(PerturbEdges(0.2, 0.2), peers.chem_perturb_edges, 0.2, count, device)


def mask_attributes(device: torch.device, count: int = 256) -> Measured:
    """Hide the features of a fifth of the nodes."""
    view = MaskAttributes(0.2, "category", (119, 0))
    return view_against_loop(view, peers.chem_mask_nodes, 0.2, count, device)


def gather(device: torch.device, count: int = 256) -> Measured:
    """A batch out of the store, against PyG's data set whose items were all touched before."""
    store = molecules().to(device)
    index = drawn(count)
    rows = index.tolist()
    dataset = peers.InMemory(graphs_of(molecules(), torch.arange(len(store))))
    sides = both_ways(lambda: store.batch(index), device)
    sides["dataset"] = lambda: peers.collated(dataset, rows).to(device)
    batch = store.batch(index)
    return Measured(medians(sides, device), data=sizes(batch), work=("copy", volume(batch)))


# --- neighbours -------------------------------------------------------------------------------------------------------


def neighbours(device: torch.device, count: int = 256, width: int = 300) -> Measured:
    """Sum over neighbours and its gradient, in a batch of molecules."""
    batch = molecules().batch(drawn(count), device)
    work = "copy", 2.0 * 4 * width * (batch.num_edges + batch.num_nodes)
    return _neighbours(batch.edge_index, batch.num_nodes, width, device, sizes(batch), work)


def neighbours_large(device: torch.device, nodes: int = 170_000, edges: int = 2_300_000, width: int = 128) -> Measured:
    """The same in one large graph."""
    edge_index = skewed(nodes, edges).to(device)
    data = f"synthetic, {nodes:,} nodes, {edge_index.size(1):,} edges"
    work = "rows", 2.0 * 4 * width * edge_index.size(1)  # read forward and backward, whatever comes on top
    return _neighbours(edge_index, nodes, width, device, data, work, repeats=3)


def _neighbours(
    edge_index: Tensor,
    nodes: int,
    width: int,
    device: torch.device,
    data: str,
    work: tuple[str, float],
    repeats: int = 5,
) -> Measured:
    x = torch.randn(nodes, width, device=device, requires_grad=True)
    grad = torch.randn(nodes, width, device=device)
    csr = csr_of(edge_index, nodes)
    our_gin, their_gin = OurGINConv(nn.Identity()).to(device), GINConv(nn.Identity()).to(device)
    forward: dict[str, Callable[[], Tensor]] = {
        "ours": lambda: neighbour_sum(x, csr),
        "scatter": lambda: peers.scatter_sum(x, edge_index),
        "ours, GIN": lambda: our_gin(x, edge_index),
        "GINConv": lambda: their_gin(x, edge_index),
    }
    sides = {name: partial(_both_passes, call, x, grad) for name, call in forward.items()}
    return Measured(medians(sides, device, repeats, most=math.inf), data=f"{data}, d={width}", work=work)


def _both_passes(call: Callable[[], Tensor], x: Tensor, grad: Tensor) -> Tensor:
    return torch.autograd.grad(call(), x, grad)[0]


# --- models and epochs ------------------------------------------------------------------------------------------------


def chem_run(device: torch.device, store: GraphStore, *settings: str) -> Run:
    """GIN 5 x 300, batches of 256, two views that drop a fifth of the atoms."""
    drop = "{name: drop_nodes, rate: 0.2}"
    overrides = [
        *("encoder={name: molecule_gin, hidden: 300, layers: 5}", "readout=mean", f"views=[[{drop}], [{drop}]]"),
        *("data.batch_size=256", "data.features=given", "method.tau=0.1", "train.lr=1e-3", "train.epochs=1"),
        *(f"train.device={device.type}", *settings),
    ]
    return build(load_config("graphcl", overrides), store)


def chem_step(device: torch.device, count: int = 256, width: int = 300) -> Measured:
    """A step on two given views, against the MLPs that it must compute, forward and backward; two threads."""
    run = chem_run(device, molecules(), f"encoder.hidden={width}")
    method = run.method.to(device).train()
    batch = molecules().batch(drawn(count), device)
    views = [method.view1(batch), method.view2(batch)]
    optimizer = make_optimizer(list(method.parameters()), run.config.train, fused=True)
    mlps = nn.Sequential()
    for _ in range(5):
        mlps.extend([nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)])
    mlps.to(device)
    rows = [torch.randn(view.num_nodes, width, device=device, requires_grad=True) for view in views]
    grads = [torch.randn_like(x) for x in rows]

    def ours() -> None:
        optimizer.zero_grad()
        z = []
        for view in views:
            view.edge_index = view.edge_index.clone()  # of other views the order of edges is not known yet
            z.append(method.project(method.encode(view)))
        infonce(*z, 0.1).backward()
        optimizer.step()

    def bare() -> None:
        mlps.zero_grad()
        for x, grad in zip(rows, grads, strict=True):
            x.grad = None
            mlps(x).backward(grad)

    with threads(min(2, usable_cores())):
        found = medians({"ours": ours, "MLPs": bare}, device, repeats=5)
        return Measured(found, data=f"{sizes(batch)}, GIN 5 x {width}, {torch.get_num_threads()} threads")


def chem_data(device: torch.device, count: int = 512) -> Measured:
    """Batches of 256 and two views of each, nothing else."""
    index = drawn(count)
    run = chem_run(device, molecules().subset(index))
    method, loader = run.method, run.loader
    loops = chem_loaders(graphs_of(molecules(), index))

    def ours() -> list[Any]:
        return [(method.view1(batch), method.view2(batch)) for batch in loader.epoch(0)]

    sides = both_ways(ours, device) | {"loop": lambda: [None for _ in zip(*loops, strict=True)]}
    return Measured(medians(sides, device, repeats=3), data=f"{count:,} molecules in batches of 256")


def chem_pretraining(device: torch.device, count: int = 2048, width: int = 300) -> Measured:
    """An epoch of pretraining, from the stored molecules to the last step; two threads."""
    index = drawn(count)
    store = molecules().subset(index)
    precisions = ["32"] + ["bf16-mixed"] * (device.type != "cpu" or multiplies_bf16())
    runs = {name: chem_run(device, store, f"encoder.hidden={width}", f"train.precision={name}") for name in precisions}
    loops = chem_loaders(graphs_of(molecules(), index))
    model = peers.ChemGNN(width).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    sides = {name: partial(_fit, run) for name, run in runs.items()}
    sides["loop"] = lambda: peers.chem_epoch(*on(device, *loops), model, optimizer)
    with threads(min(2, usable_cores())):
        found = medians(sides, device, repeats=3, most=math.inf)
        return Measured(found, data=f"{count:,} molecules, GIN 5 x {width}, {torch.get_num_threads()} threads")


def chem_loaders(graphs: list[Data]) -> list[DataLoader]:
    """The authors' loaders of two views."""
    rng = np.random.default_rng(0)
    return [
        DataLoader(peers.Augmented(graphs, lambda graph: peers.chem_drop_nodes(graph, 0.2, rng)), 256) for _ in "12"
    ]


def on(device: torch.device, *loaders: Any) -> list[Iterator[Batch]]:
    """Their batches on the device."""
    return [(batch.to(device) for batch in loader) for loader in loaders]


def _fit(run: Run) -> float:
    return fit(run, progress=False)["seconds"]


def tu_run(device: torch.device, store: GraphStore) -> Run:
    """GIN 3 x 32, batches of 128, the graphs against one view of them (nodes dropped, or a subgraph)."""
    settings = ["data.features=given", "data.batch_size=128", "train.epochs=1", f"train.device={device.type}"]
    return build(load_config("graphcl", settings), store)


def tu_epoch(device: torch.device, batches: int = 8) -> Measured:
    """Batches of 128 against one view of them, GIN 3 x 32. An epoch is as many of these as the data set has."""
    store = tu_graphs().subset(torch.randperm(len(tu_graphs()))[: 128 * batches])
    run = tu_run(device, store)
    graphs, rng = graphs_of(store, torch.arange(len(store))), np.random.default_rng(0)
    plain = [Data(x=graph.x, edge_index=graph.edge_index) for graph in graphs]
    loop = DataLoader(peers.Augmented(plain, lambda graph: peers.tu_pair(graph, rng)), 128)
    whole = DataLoader(peers.InMemory(plain), 128, shuffle=True)
    models = [peers.PooledGIN(store.num_features).to(device) for _ in range(2)]
    optimizers = [torch.optim.Adam(model.parameters(), lr=0.01) for model in models]
    sides = {
        "ours": partial(_fit, run),
        "masks": lambda: peers.masks_epoch(whole, models[0], optimizers[0], device),
        "loop": lambda: peers.tu_epoch(loop, models[1], optimizers[1], device),
    }
    return Measured(medians(sides, device, repeats=3), data=f"{len(store):,} graphs of {store.name}")


def grace_epoch(device: torch.device, hidden: int = 256) -> Measured:
    """Views, encoder, loss and step on the whole of Cora."""
    view = "[{name: perturb_edges, drop: 0.3, exact: false}, {name: drop_features, rate: 0.3}]"
    settings = [f"encoder.hidden={hidden}", f"encoder.out={hidden}", f"method.proj_dim={hidden}", "method.tau=0.2"]
    run = build(
        load_config("grace", [*settings, f"views=[{view}, {view}]", "train.epochs=1", f"train.device={device.type}"])
    )
    data = run.data.clone().to(device)
    sides: dict[str, Callable[[], object]] = {"ours": partial(_fit, run)}
    for name, loss in {"masks": None, **real_losses(intraview=True)}.items():
        model = peers.GraceGCN(data.num_features, hidden).to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        sides[name] = partial(peers.masks_grace_epoch, data, model, optimizer, loss)
    return Measured(medians(sides, device, repeats=3), data=f"Cora, hidden {hidden}")
