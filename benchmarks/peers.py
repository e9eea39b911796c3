"""What people run today, re-implemented in short from descriptions of it: to be measured against, and for nothing else.

chem_*   the molecule loader and encoder of the GraphCL authors: numpy and Python over the nodes and edges of one graph
tu_*     their code for TU sets: dense adjacency matrices of single graphs, and a Python loop that relabels the batch
masks_*  PyGCL: tensor operations on the batch as if it were one graph, and losses with mask tensors
others   PyG's own ways, dense losses, MoCo's queue

The flaws that cost or save time are kept and named. Left out is what the authors compute and never use, and one flaw:
their TU code copies the storage of the whole data set for every graph (deepcopy of a slice), which makes it ten times
slower than its algorithm.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch_geometric.data import Batch, Data, InMemoryDataset
from torch_geometric.data.separate import separate
from torch_geometric.nn import GCNConv, GINConv, MessagePassing, global_add_pool, global_mean_pool
from torch_geometric.utils import add_self_loops, subgraph

Augment = Callable[[Data], Any]

# --- data -------------------------------------------------------------------------------------------------------------


class InMemory(InMemoryDataset):
    """Graphs as PyG keeps them: one Data with slices; items are cut out at the first touch and copied after that."""

    def __init__(self, graphs: Sequence[Data]) -> None:
        super().__init__()
        self._data, self.slices = self.collate(list(graphs))


class Augmented(InMemory):
    """The authors' data sets: every item is cut out of the slices each time, and augmented on its own."""

    def __init__(self, graphs: Sequence[Data], augment: Augment) -> None:
        super().__init__(graphs)
        self.augment = augment

    def get(self, i: int) -> Any:
        """Item i, augmented."""
        item = separate(cls=Data, batch=self._data, idx=i, slice_dict=self.slices, decrement=False)
        return self.augment(item.clone())


def collated(dataset: InMemory, index: Sequence[int]) -> Batch:
    """A batch, as DataLoader makes it."""
    return Batch.from_data_list([dataset[i] for i in index])


# --- GraphCL on molecules ---------------------------------------------------------------------------------------------


def chem_drop_nodes(data: Data, rate: float, rng: np.random.Generator) -> Data:
    """Drop int(rate * n) nodes."""
    order = rng.permutation(data.num_nodes)
    dropped = int(data.num_nodes * rate)
    return _without(data, order[:dropped], np.sort(order[dropped:]))


def chem_subgraph(data: Data, keep: float, rng: np.random.Generator) -> Data:
    """A start and some of its neighbours, at most int(keep * n) + 1 nodes."""
    taken = _star(data, int(data.num_nodes * keep), rng)
    return _without(data, [node for node in range(data.num_nodes) if node not in taken], np.sort(taken))


def _star(data: Data, size: int, rng: np.random.Generator) -> list[int]:
    """The frontier should grow with every node taken, but the union that would grow it is thrown away."""
    ends, n = data.edge_index.numpy(), data.num_nodes
    taken = [int(rng.integers(n))]
    frontier = set(ends[1][ends[0] == taken[0]])
    for _ in range(n):
        if len(taken) > size or not frontier:
            break
        node = rng.choice(list(frontier))
        if node not in taken:
            taken.append(int(node))
            frontier.union(set(ends[1][ends[0] == node]))
    return taken


def _without(data: Data, dropped: Any, kept: np.ndarray) -> Data:
    """The nodes `kept`, renumbered; every edge is looked up among the dropped, for its attributes and for its ends."""
    number = {int(old): new for new, old in enumerate(kept)}
    ends = data.edge_index.numpy()
    edges = range(ends.shape[1])
    rows = [e for e in edges if not (ends[0, e] in dropped or ends[1, e] in dropped)]
    between = [e for e in edges if ends[0, e] not in dropped and ends[1, e] not in dropped]
    pairs = [[number[ends[0, e]], number[ends[1, e]]] for e in between]
    if not pairs:  # the authors then leave the graph as it was
        return data
    edge_attr = data.edge_attr[torch.tensor(rows)]
    return Data(x=data.x[torch.from_numpy(kept)], edge_index=torch.tensor(pairs).t(), edge_attr=edge_attr)


def chem_perturb_edges(data: Data, rate: float, rng: np.random.Generator) -> Data:
    """Replace int(rate * e) directed edges by random ones; their attributes stay where they were."""
    ends, e = data.edge_index.numpy(), data.num_edges
    change = int(e * rate)
    kept = ends[:, rng.choice(e, e - change, replace=False)]
    new = rng.integers(data.num_nodes, size=(2, change))
    return Data(x=data.x, edge_index=torch.from_numpy(np.concatenate([kept, new], 1)), edge_attr=data.edge_attr)


def chem_mask_nodes(data: Data, rate: float, rng: np.random.Generator) -> Data:
    """Put the mean over the graph into int(rate * n) rows of x."""
    rows = torch.from_numpy(rng.choice(data.num_nodes, int(data.num_nodes * rate), replace=False))
    x = data.x.float()  # on integers, as the authors have it, `mean` fails in today's torch
    x[rows] = x.mean(0)
    return Data(x=x, edge_index=data.edge_index, edge_attr=data.edge_attr)


class ChemConv(MessagePassing):
    """GIN with embedded bonds: every edge and self-loop makes a message."""

    def __init__(self, width: int) -> None:
        super().__init__(aggr="add")
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))
        self.bond, self.direction = nn.Embedding(6, width), nn.Embedding(3, width)

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        """x: [N, D]; edge_attr: [E, 2]. Returns [N, D]."""
        edge_index, _ = add_self_loops(edge_index, num_nodes=x.size(0))
        loops = edge_attr.new_zeros(x.size(0), 2)
        loops[:, 0] = 4
        edge_attr = torch.cat([edge_attr, loops])
        edges = self.bond(edge_attr[:, 0]) + self.direction(edge_attr[:, 1])
        return self.mlp(self.propagate(edge_index, x=x, edges=edges))

    def message(self, x_j: Tensor, edges: Tensor) -> Tensor:
        """[E, D]."""
        return x_j + edges


class ChemGNN(nn.Module):
    """Batch -> [B, D], the projected mean over the atoms."""

    def __init__(self, width: int = 300, layers: int = 5) -> None:
        super().__init__()
        self.atom, self.chirality = nn.Embedding(120, width), nn.Embedding(3, width)
        self.convs = nn.ModuleList(ChemConv(width) for _ in range(layers))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(layers))
        self.project = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def nodes(self, batch: Data) -> Tensor:
        """[N, D]."""
        h = self.atom(batch.x[:, 0]) + self.chirality(batch.x[:, 1])
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            h = norm(conv(h, batch.edge_index, batch.edge_attr))
            h = h if i == len(self.convs) - 1 else F.relu(h)
        return h

    def forward(self, batch: Data) -> Tensor:
        """[B, D]."""
        return self.project(global_mean_pool(self.nodes(batch), batch.batch, batch.num_graphs))


def graphcl_loss(z1: Tensor, z2: Tensor, tau: float) -> Tensor:
    """The authors' loss: -log(pos / (all - pos)), from view 1 to view 2."""
    norms = torch.einsum("i,j->ij", z1.norm(dim=1), z2.norm(dim=1))
    similar = torch.exp(torch.einsum("ik,jk->ij", z1, z2) / norms / tau)
    positive = similar.diagonal()
    return -torch.log(positive / (similar.sum(1) - positive)).mean()


def chem_step(model: ChemGNN, optimizer: Optimizer, batch1: Data, batch2: Data) -> float:
    """One step on two views."""
    optimizer.zero_grad()
    loss = graphcl_loss(model(batch1), model(batch2), tau=0.1)
    loss.backward()
    optimizer.step()
    return loss.item()


def chem_epoch(loader1: Iterable[Data], loader2: Iterable[Data], model: ChemGNN, optimizer: Optimizer) -> None:
    """Two loaders over the same molecules in the same order, each augmenting on its own."""
    for batch1, batch2 in zip(loader1, loader2, strict=True):
        chem_step(model, optimizer, batch1, batch2)


# --- GraphCL on TU sets -----------------------------------------------------------------------------------------------


class PooledGIN(nn.Module):
    """(x, edge_index, batch, size) -> [B, layers * hidden]: PyG's GINConv, ReLU, batch norm; the sums of all layers."""

    def __init__(self, in_dim: int, hidden: int = 32, layers: int = 3) -> None:
        super().__init__()
        sizes = [in_dim] + [hidden] * (layers - 1)
        self.convs = nn.ModuleList(
            GINConv(nn.Sequential(nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, hidden))) for size in sizes
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(hidden) for _ in sizes)
        width = hidden * layers
        self.project = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor, size: int) -> Tensor:
        """[B, layers * hidden], not yet projected."""
        layers = []
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(F.relu(conv(x, edge_index)))
            layers.append(x)
        return torch.cat([global_add_pool(h, batch, size) for h in layers], 1)


def tu_pair(data: Data, rng: np.random.Generator) -> tuple[Data, Data]:
    """A graph, and it with a tenth of the nodes dropped, or a fifth of them kept (the authors' `random2`)."""
    last = int(data.edge_index.max()) if data.num_edges else 0
    loops = torch.tensor([[node, node] for node in range(last)], dtype=torch.long)  # one for every node but the last
    data.edge_index = torch.cat([data.edge_index, loops.view(-1, 2).t()], 1)
    n, other = data.num_nodes, copy.deepcopy(data)
    if rng.integers(2):
        dropped = rng.permutation(n)[: n // 10].tolist()
    else:
        taken = _star(data, int(n * 0.2), rng)
        dropped = [node for node in range(n) if node not in taken]
    adjacency = torch.zeros(n, n)
    adjacency[data.edge_index[0], data.edge_index[1]] = 1
    adjacency[dropped, :] = 0
    adjacency[:, dropped] = 0
    other.edge_index = adjacency.nonzero().t()
    return data, other


def tu_relabel(batch: Data) -> Data:
    """Without self-loops, and without the nodes that no edge names: each is looked up among all edges of the batch."""
    ends = batch.edge_index.numpy()
    named = [node for node in range(batch.num_nodes) if node in ends[0] or node in ends[1]]
    number = {old: new for new, old in enumerate(named)}
    between = [e for e in range(ends.shape[1]) if ends[0, e] != ends[1, e]]
    pairs = torch.tensor([[number[ends[0, e]], number[ends[1, e]]] for e in between], dtype=torch.long)
    return Data(x=batch.x[named], edge_index=pairs.view(-1, 2).t(), batch=batch.batch[named])


def tu_epoch(loader: Iterable[Any], model: PooledGIN, optimizer: Optimizer, device: torch.device) -> None:
    """The authors' epoch: the graphs as they are against one view of them."""
    for batch, other in loader:
        optimizer.zero_grad()
        size = batch.num_graphs
        other, batch = tu_relabel(other).to(device), batch.to(device)
        z1 = model.project(model(batch.x, batch.edge_index, batch.batch, size))
        z2 = model.project(model(other.x, other.edge_index, other.batch, size))
        loss = graphcl_loss(z1, z2, tau=0.2)
        loss.backward()
        optimizer.step()
        loss.item()


# --- PyGCL ------------------------------------------------------------------------------------------------------------


def masks_drop_nodes(x: Tensor, edge_index: Tensor, rate: float) -> tuple[Tensor, Tensor]:
    """Cut off every node with probability `rate`; it stays in x, and in the sum over its graph."""
    keep = torch.rand(x.size(0), device=x.device) >= rate
    return x, subgraph(keep, edge_index, num_nodes=x.size(0))[0]


def masks_drop_edges(x: Tensor, edge_index: Tensor, rate: float) -> tuple[Tensor, Tensor]:
    """Drop every directed edge with probability `rate`."""
    return x, edge_index[:, torch.rand(edge_index.size(1), device=x.device) >= rate]


def masks_hide_columns(x: Tensor, edge_index: Tensor, rate: float) -> tuple[Tensor, Tensor]:
    """Zero every column of x with probability `rate`."""
    x = x.clone()
    x[:, torch.rand(x.size(1), device=x.device) < rate] = 0
    return x, edge_index


def masks_walk(x: Tensor, edge_index: Tensor, starts: int = 1000, length: int = 10) -> tuple[Tensor, Tensor]:
    """The edges between nodes that 1000 walks over the whole batch saw."""
    n = x.size(0)
    row, order = edge_index[0].sort()
    col = edge_index[1][order]
    pointer = torch.searchsorted(row, torch.arange(n + 1, device=x.device))
    degree = pointer.diff()
    at = torch.randint(n, (starts,), device=x.device)
    seen = [at]
    for _ in range(length):
        step = (torch.rand(starts, device=x.device) * degree[at]).long()
        at = torch.where(degree[at] > 0, col[(pointer[at] + step).clamp(max=len(col) - 1)], at)
        seen.append(at)
    return x, subgraph(torch.cat(seen).unique(), edge_index, num_nodes=n)[0]


MASKS_CHOICES = (
    masks_walk,
    lambda x, edge_index: masks_drop_nodes(x, edge_index, 0.1),
    lambda x, edge_index: masks_hide_columns(x, edge_index, 0.1),
    lambda x, edge_index: masks_drop_edges(x, edge_index, 0.1),
)


def masks_infonce(z1: Tensor, z2: Tensor, tau: float, intraview: bool = False) -> Tensor:
    """InfoNCE in both directions with tensors [N, N] (with intra-view negatives [N, 2N]) of positives and negatives.

    With intra-view negatives every row is a negative of itself: the mask that says otherwise is overwritten.
    """
    return (_masks_one_way(z1, z2, tau, intraview) + _masks_one_way(z2, z1, tau, intraview)) * 0.5


def _masks_one_way(anchor: Tensor, sample: Tensor, tau: float, intraview: bool) -> Tensor:
    positive = torch.eye(len(anchor), device=anchor.device)
    negative = 1.0 - positive
    if intraview:
        negative = torch.cat([negative, torch.ones_like(positive) - torch.eye(len(anchor), device=anchor.device)], 1)
        positive = torch.cat([positive, torch.zeros_like(positive)], 1)
        sample = torch.cat([sample, anchor])
        negative = 1.0 - positive  # the overwriting
    similar = F.normalize(anchor) @ F.normalize(sample).t() / tau
    weight = torch.exp(similar) * (positive + negative)
    log_probability = (similar - torch.log(weight.sum(1, keepdim=True))) * positive
    return -(log_probability.sum(1) / positive.sum(1)).mean()


def masks_epoch(loader: Iterable[Data], model: PooledGIN, optimizer: Optimizer, device: torch.device) -> None:
    """PyGCL's GraphCL example: one choice of four for the whole batch, and the encoder on the plain batch twice."""
    for batch in loader:
        batch = batch.to(device)
        optimizer.zero_grad()
        choice = MASKS_CHOICES[int(torch.randint(4, ()))]
        views = [(batch.x, batch.edge_index), (batch.x, batch.edge_index), choice(batch.x, batch.edge_index)]
        _, g1, g2 = (model(x, edges, batch.batch, batch.num_graphs) for x, edges in views)
        loss = masks_infonce(model.project(g1), model.project(g2), tau=0.2)
        loss.backward()
        optimizer.step()
        loss.item()


class GraceGCN(nn.Module):
    """(x, edge_index) -> [N, hidden]: two of PyG's GCNConv, each with ReLU, and a projector of one hidden layer."""

    def __init__(self, in_dim: int, hidden: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList([GCNConv(in_dim, hidden), GCNConv(hidden, hidden)])
        self.project = nn.Sequential(nn.Linear(hidden, hidden), nn.ELU(), nn.Linear(hidden, hidden))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """[N, hidden]."""
        for conv in self.convs:
            x = F.relu(conv(x, edge_index))
        return x


def masks_grace_epoch(
    data: Data, model: GraceGCN, optimizer: Optimizer, loss_of: Callable[[Tensor, Tensor], Tensor] | None = None
) -> None:
    """PyGCL's GRACE example: edges and columns dropped by 0.3, the encoder on the plain graph too, for nothing."""
    loss_of = loss_of or (lambda z1, z2: masks_infonce(z1, z2, tau=0.2, intraview=True))
    optimizer.zero_grad()
    views = [masks_hide_columns(*masks_drop_edges(data.x, data.edge_index, 0.3), 0.3) for _ in range(2)]
    _, h1, h2 = (model(x, edges) for x, edges in [(data.x, data.edge_index), *views])
    loss = loss_of(model.project(h1), model.project(h2))
    loss.backward()
    optimizer.step()
    loss.item()


# --- the rest ---------------------------------------------------------------------------------------------------------


def scatter_sum(x: Tensor, edge_index: Tensor) -> Tensor:
    """Sum over neighbours as PyG does it on any machine: a row for every edge, added into place. [N, D]"""
    rows = x.index_select(0, edge_index[0])
    return torch.zeros_like(x).scatter_add_(0, edge_index[1].view(-1, 1).expand_as(rows), rows)


def dense_infonce(z1: Tensor, z2: Tensor, tau: float) -> Tensor:
    """Cross entropy over the whole N x N matrix, in both directions."""
    logits = F.normalize(z1) @ F.normalize(z2).t() / tau
    target = torch.arange(len(z1), device=z1.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.t(), target)) / 2


def moco_loss(q: Tensor, k: Tensor, queue: Tensor, tau: float) -> Tensor:
    """MoCo's loss on q, k [N, D] of length 1 and a queue [D, K] that is cloned at each step."""
    positive = torch.einsum("nc,nc->n", q, k).unsqueeze(1)
    negative = torch.einsum("nc,ck->nk", q, queue.clone().detach())
    logits = torch.cat([positive, negative], 1) / tau
    return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long, device=q.device))
