"""Pictures of a run: the loss, a map of the embeddings, and a piece of the graph beside its views."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
import networkx as nx
import numpy as np
import torch
from matplotlib import pyplot as plt
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch import Tensor
from torch_geometric.data import Batch, Data
from torch_geometric.utils import k_hop_subgraph, subgraph

from graphcl.data.store import GraphStore
from graphcl.evaluate.embed import embed
from graphcl.state import Run

matplotlib.use("Agg")

MAP_POINTS = 1500  # t-SNE of more takes minutes
PIECE_NODES = 40


def draw_curve(metrics: Path, path: Path) -> None:
    """The loss of every step in metrics.jsonl, with its running mean."""
    lines = steps_of(metrics)
    steps = np.array([line["step"] for line in lines])
    fig, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    for key in [key for key in lines[0] if key == "loss" or key.endswith(".loss")]:
        loss = np.array([line[key] for line in lines])
        window = max(1, len(loss) // 50)
        smooth = np.convolve(loss, np.ones(window) / window, mode="valid")
        (line,) = axes.plot(steps, loss, alpha=0.3)
        axes.plot(steps[window - 1 :], smooth, color=line.get_color(), label=key)
    axes.set(xlabel="step", ylabel="loss")
    axes.legend()
    fig.savefig(path, dpi=120)
    plt.close(fig)


def steps_of(metrics: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl. ValueError names one that is damaged."""
    steps = []
    for number, line in enumerate(metrics.read_bytes().splitlines(), 1):
        try:
            step = json.loads(line)
        except ValueError:
            step = None
        if not isinstance(step, dict) or "step" not in step:
            raise ValueError(
                f"{metrics}: line {number} is not the values of a step: {line[:60]!r}; take the line out, and repeat "
                "the command with --resume, which does not train again what is done"
            )
        steps.append(step)
    if not steps:
        raise ValueError(f"{metrics} is empty, so there is no curve to draw; `graphcl evaluate` scores the run")
    return steps


def draw_embedding(run: Run, path: Path) -> None:
    """t-SNE map of at most MAP_POINTS embeddings, coloured by label (the first task's, where there are several)."""
    z = embed(run.method, run.data)
    labels = run.data.y
    chosen = torch.randperm(len(z), generator=torch.Generator().manual_seed(0))[:MAP_POINTS]
    z = z[chosen]
    flat = (
        PCA(n_components=min(50, *z.shape), random_state=0).fit_transform(z.numpy()) if min(z.shape) > 2 else z.numpy()
    )
    if len(np.unique(flat.round(5), axis=0)) > 5:  # t-SNE crashes where nearly all points are one
        flat = TSNE(
            perplexity=min(30, (len(flat) - 1) / 3), init="pca" if flat.shape[1] > 1 else "random", random_state=0
        ).fit_transform(flat)
    points = np.zeros((len(flat), 2))
    points[:, : min(2, flat.shape[1])] = flat[:, :2]
    fig, axes = plt.subplots(figsize=(5.5, 5), layout="constrained")
    if labels is None:
        axes.scatter(points[:, 0], points[:, 1], s=6)
    else:
        y = labels[chosen].reshape(len(chosen), -1)[:, 0].numpy()
        for value in np.unique(y[~np.isnan(y)])[:20]:
            axes.scatter(points[y == value, 0], points[y == value, 1], s=6, label=f"{value:g}")
        axes.legend(title="label", markerscale=2, fontsize="small")
    axes.set(xticks=[], yticks=[])
    title = f"{run.config.method.name} on {run.config.data.name}, t-SNE of {len(points)}"
    axes.set_title(title, parse_math=False)  # a path may have a $
    fig.savefig(path, dpi=120)
    plt.close(fig)


def draw_views(run: Run, path: Path) -> None:
    """A piece of the graph and each view of it, nodes in the same places: dropped grey, added red, masked hollow."""
    piece = one_graph(run.data)
    drawn = {"graph": piece}
    method = run.method
    for name in ("view", "view1", "view2"):
        if hasattr(method, name):
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                drawn[name] = getattr(method, name)(Batch.from_data_list([piece]))
    weights: Any = getattr(method, "edge_weight", None)  # a learned view: adgcl
    if weights is not None:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            learned = Batch.from_data_list([piece])
            learned.edge_index = learned.edge_index[:, weights(learned) > 0.5]
        drawn["learned view, weights > 0.5"] = learned
    place = nx.spring_layout(as_networkx(piece), seed=0)
    fig, axes = plt.subplots(1, len(drawn), figsize=(4 * len(drawn), 4), layout="constrained", squeeze=False)
    for axis, (name, view) in zip(axes[0], drawn.items(), strict=True):
        draw_one(axis, piece, view, place)
        axis.set_title(name)
    fig.savefig(path, dpi=120)
    plt.close(fig)


def one_graph(source: Data | GraphStore) -> Data:
    """A connected piece of one graph, or a graph of middling size, with n_id as its node names."""
    if isinstance(source, GraphStore):
        sizes = source.node_ptr.diff()
        index = int((sizes - PIECE_NODES // 2).abs().argmin())
        data = source[index]
    else:
        data = source
    piece = Data(x=data.x, edge_index=data.edge_index, edge_attr=data.edge_attr, num_nodes=data.num_nodes)
    nodes = neighbourhood(piece)
    edge_index, edge_attr = subgraph(
        nodes, piece.edge_index, piece.edge_attr, relabel_nodes=True, num_nodes=piece.num_nodes
    )
    return Data(
        x=piece.x[nodes],
        edge_index=edge_index,
        edge_attr=edge_attr,
        n_id=torch.arange(len(nodes)),
        num_nodes=len(nodes),
    )


def neighbourhood(data: Data) -> Tensor:
    """At most PIECE_NODES nodes around one of middling degree."""
    if data.num_nodes <= PIECE_NODES:
        return torch.arange(data.num_nodes)
    degree = data.edge_index[0].bincount(minlength=data.num_nodes)
    nodes = (degree - 5).abs().argmin()[None]
    for hops in range(1, 10):
        wider = k_hop_subgraph(int(nodes[0]), hops, data.edge_index, num_nodes=data.num_nodes)[0]
        if len(wider) > PIECE_NODES:
            near = wider[~torch.isin(wider, nodes)][: PIECE_NODES - len(nodes)]
            return torch.cat([nodes, near]).sort().values
        nodes = torch.cat([nodes[:1], wider[wider != nodes[0]]])
    return nodes.sort().values


def as_networkx(data: Data) -> nx.Graph:
    """The graph on its n_id."""
    graph = nx.Graph()
    graph.add_nodes_from(data.n_id.tolist())
    graph.add_edges_from(data.n_id[data.edge_index].T.tolist())
    return graph


def draw_one(axis: plt.Axes, piece: Data, view: Data, place: dict[int, np.ndarray]) -> None:
    """Draw a view over the pale piece that it came from; masked nodes are hollow."""
    before, after = as_networkx(piece), as_networkx(view)
    added = [edge for edge in after.edges if not before.has_edge(*edge)]
    kept = [edge for edge in after.edges if before.has_edge(*edge)]
    nx.draw_networkx_edges(before, place, ax=axis, edge_color="0.9")
    nx.draw_networkx_nodes(before, place, ax=axis, node_size=30, node_color="0.9")
    nx.draw_networkx_edges(after, place, ax=axis, edgelist=kept, edge_color="0.3")
    nx.draw_networkx_edges(after, place, ax=axis, edgelist=added, edge_color="tab:red")
    masked = set(view.n_id[view.masked].tolist()) if "masked" in view else set()
    colours = ["white" if node in masked else "tab:blue" for node in after.nodes]
    nx.draw_networkx_nodes(after, place, ax=axis, node_size=30, node_color=colours, edgecolors="tab:blue")
    axis.axis("off")
