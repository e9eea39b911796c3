"""Every method, small, on a small graph or batch of graphs, with views and encoders that a hand can follow."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.data import Data

from graphcl.data.loaders import Loader
from graphcl.data.store import GraphStore
from graphcl.encoders import GCN, GIN, MoleculeGIN
from graphcl.encoders.readout import Readout
from graphcl.methods import (
    ADGCL,
    BGRL,
    DGI,
    GAE,
    GRACE,
    PCL,
    AttributeMasking,
    ContextPrediction,
    GraphCL,
    InfoGraph,
    MoCo,
)
from graphcl.methods.method import Method

WIDTH = 6  # of the features


class Rows(nn.Module):
    """An encoder that a hand can follow: a linear map of every node's features."""

    def __init__(self, out_dim: int = 5) -> None:
        super().__init__()
        self.out_dim = out_dim
        self.linear = nn.Linear(WIDTH, out_dim)

    def forward(self, data: Any) -> Tensor:
        return self.linear(data.x)


class Neighbours(Rows):
    """A linear map of the weighted sum over the neighbours and the node itself."""

    def forward(self, data: Any) -> Tensor:
        h = self.linear(data.x)
        src, dst = data.edge_index
        weight = torch.ones(len(src), dtype=h.dtype) if data.edge_weight is None else data.edge_weight
        return h + torch.zeros_like(h).index_add(0, dst, weight[:, None].to(h.dtype) * h[src])


def identity(data: Any) -> Any:
    return data


def noisy(data: Any) -> Any:
    """Features with noise on them."""
    out = copy.copy(data)
    out.x = data.x + 0.3 * torch.randn_like(data.x)
    return out


def swapped(data: Any) -> Any:
    """Features of other nodes."""
    out = copy.copy(data)
    out.x = data.x[torch.randperm(len(data.x))]
    return out


def keep(nodes: list[int]) -> Callable[[Data], Data]:
    """A view of one graph that has these nodes, in this order."""

    def view(data: Data) -> Data:
        index = torch.tensor(nodes)
        out = Data(x=data.x[index], n_id=data.n_id[index], graph_id=data.graph_id)
        place = torch.full((len(data.x),), -1).scatter(0, index, torch.arange(len(index)))
        edges = place[data.edge_index]
        out.edge_index = edges[:, (edges >= 0).all(0)]
        return out

    return view


def ring(n: int, generator: torch.Generator) -> Data:
    """A ring (a path for 2 nodes, a lone node for 1), both directions, with random features."""
    nodes = torch.arange(n)
    edges = torch.stack([nodes, nodes.roll(-1)])[:, : n if n > 2 else n - 1]
    x = torch.randn(n, WIDTH, generator=generator)
    return Data(x=x, edge_index=torch.cat([edges, edges.flip(0)], 1), y=torch.tensor([n % 2]))


def graphs(sizes: Iterable[int] = (5, 1, 8, 3, 4, 7, 2, 6)) -> Any:
    """A Batch as the Loader makes it; one of its graphs is a lone node without edges."""
    generator = torch.Generator().manual_seed(1)
    return next(iter(Loader(GraphStore.from_graphs([ring(n, generator) for n in sizes])).in_order()))


def molecules(sizes: Iterable[int] = (5, 1, 8, 3, 4, 7, 2, 6)) -> Any:
    """A Batch of rings with the categories of atoms and bonds; one of them is a lone atom."""
    generator = torch.Generator().manual_seed(1)
    made = [ring(n, generator) for n in sizes]
    for data in made:
        data.x = torch.stack([torch.arange(data.num_nodes) % 3 + 5, torch.zeros(data.num_nodes).long()], 1)
        data.edge_attr = torch.stack([data.edge_index.sum(0) % 2, torch.zeros(data.num_edges).long()], 1)
    return next(iter(Loader(GraphStore.from_graphs(made)).in_order()))


def nodes(n: int = 16) -> Data:
    """One graph as the Loader gives it."""
    data = ring(n, torch.Generator().manual_seed(2))
    data.y = torch.arange(n) % 2
    return next(iter(Loader(data).in_order()))


def sample(seeds: int = 6) -> Data:
    """A neighbour sample of that graph as PyG makes it: the seeds come first."""
    data = nodes()
    data.batch_size = seeds
    return data


def encoder() -> nn.Module:
    return GCN(WIDTH, 16, layers=1)


def graph_encoder() -> nn.Module:
    return GIN(WIDTH, 8, layers=2)


# By name and level; small settings only where the defaults do not fit so few graphs.
METHODS: dict[str, Callable[[], Method]] = {
    "graphcl": lambda: GraphCL(graph_encoder(), Readout(), noisy, noisy),
    "moco": lambda: MoCo(graph_encoder(), noisy, noisy, Readout(), queue=8, proj_dim=16, momentum=0.9),
    "moco on nodes": lambda: MoCo(encoder(), noisy, noisy, queue=16, proj_dim=16, momentum=0.9),
    "grace": lambda: GRACE(encoder(), noisy, noisy, proj_dim=16),
    "bgrl": lambda: BGRL(encoder(), noisy, noisy, pred_hidden=16, momentum=0.9),
    "dgi": lambda: DGI(encoder(), swapped),
    "infograph": lambda: InfoGraph(graph_encoder(), Readout()),
    "gae": lambda: GAE(encoder()),
    "gae on graphs": lambda: GAE(graph_encoder(), Readout()),
    "gae, variational": lambda: GAE(encoder(), variational=True),
    "pcl": lambda: PCL(
        encoder(), noisy, noisy, 16, clusters=(2, 3), queue=16, proj_dim=16, momentum=0.9, warmup_epochs=0
    ),
    "pcl on graphs": lambda: PCL(
        graph_encoder(), noisy, noisy, 8, Readout(), clusters=(2,), queue=8, proj_dim=16, momentum=0.9, warmup_epochs=0
    ),
    "adgcl": lambda: ADGCL(graph_encoder(), graph_encoder(), Readout(), view_hidden=8),
    "attribute_masking": lambda: AttributeMasking(MoleculeGIN(8, layers=2), Readout("mean")),
    "attribute_masking, bonds": lambda: AttributeMasking(MoleculeGIN(8, layers=2), Readout("mean"), mask_edges=True),
    "context_prediction": lambda: ContextPrediction(
        GIN(WIDTH, 8, layers=2, jk="last"), GIN(WIDTH, 8, layers=1, jk="last"), Readout(), hops=1, context_size=1
    ),
}


def make(name: str, seed: int = 0) -> Method:
    torch.manual_seed(seed)
    return METHODS[name]()


def batch_for(method: Method) -> Any:
    if isinstance(method.encoder, MoleculeGIN):
        return molecules()
    return nodes() if getattr(method, "readout", None) is None else graphs()


def train(method: Method, batch: Any, steps: int, lr: float = 0.01, autocast: bool = False) -> list[dict[str, float]]:
    """What the trainer does: each player in turn, then after_step. Returns the first player's values of every step."""
    players = {name: [p for p in own if p.requires_grad] for name, own in method.groups().items()}
    optimizers = {name: torch.optim.Adam(own, lr=lr) for name, own in players.items()}
    history = []
    for step in range(steps):
        if step % 20 == 0:
            method.before_epoch([batch], step)
        method.train()
        row: dict[str, float] = {}
        for name, optimizer in optimizers.items():
            method.zero_grad()
            with torch.autocast("cpu", enabled=autocast):
                values = method.loss(batch, name)
            values["loss"].backward()
            optimizer.step()
            row = row or {key: float(value.detach()) for key, value in values.items()}
        method.after_step((step + 1) / steps)
        history.append(row)
    return history
