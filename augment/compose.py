"""Views made of views: one after another, two at once, one of several for each graph."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from augment._plan import Plan, carried_out, edge_pointer, levels, put, set_edges, set_nodes
from augment._segments import Graphs, count, edges_of, graphs_of, pointer
from augment.join import FILL

View = Callable[[Any], Any]


class Compose(BaseTransform):
    """The views one after another, each on what the one before left; without any, the data as it is."""

    def __init__(self, views: Sequence[View]) -> None:
        self.views = _checked("Compose", views)

    def forward(self, data: Data) -> Data:
        for view in self.views:
            data = view(data)
        return data

    def __repr__(self) -> str:
        return f"Compose({self.views})"


class TwoViews(BaseTransform):
    """(view1(data), view2(data)): two views of the same data, each drawn on its own."""

    def __init__(self, view1: View, view2: View) -> None:
        self.view1, self.view2 = _checked("TwoViews", [view1, view2])

    def forward(self, data: Data) -> tuple[Data, Data]:
        return self.view1(data), self.view2(data)

    def __repr__(self) -> str:
        return f"TwoViews({self.view1}, {self.view2})"


class OneOf(BaseTransform):
    """One of the views for each graph, drawn uniformly and recorded in `view_op [B]`: the place in `views`.

    GraphCL's random2, random3, random4 (You et al., 2020, arXiv:2010.13902). Views that only choose (all of this
    package but diffusions, Compose and OneOf) say what they would do, which is merged graph by graph and done once; any
    other view sees the whole batch, and its graphs are then taken from what it gives. Per-graph attributes are those of
    the input. A per-node or per-edge attribute that only some of the views leave is kept if it can be filled: `masked`
    with False, `edge_weight` with 1; else (edge_attr beside a diffusion) it is dropped. In a OneOf within a OneOf the
    outer choice is the recorded one.

    views: at least one; ValueError otherwise.
    generator: of the choice, on the data's device; None is torch's own.
    """

    def __init__(self, views: Sequence[View], *, generator: torch.Generator | None = None) -> None:
        self.views = _checked("OneOf", views)
        if not self.views:
            raise ValueError("OneOf chooses between views, got none; give it at least one")
        self.generator = generator

    def forward(self, data: Data) -> Data:
        graphs = graphs_of(data)
        choice = torch.randint(len(self.views), (graphs.size,), generator=self.generator, device=graphs.batch.device)
        planned = {i: view for i, view in enumerate(self.views) if hasattr(view, "plan")}
        other = {i: view for i, view in enumerate(self.views) if i not in planned}
        plans = {i: view.plan(data, graphs) for i, view in planned.items()}
        parts = [view(copy.copy(data)) for view in other.values()]
        if planned:
            parts.append(carried_out(copy.copy(data), graphs, _merged(plans, choice, data, graphs)))
        if other:
            place = torch.full_like(choice, len(other))
            for k, i in enumerate(other):
                place = torch.where(choice == i, k, place)
            data = _merge(data, parts, place)
        else:
            data = parts[0]
        put(data, {"view_op": choice}, torch.arange(graphs.size + 1, device=choice.device))
        return data

    def __repr__(self) -> str:
        return f"OneOf({self.views})"


def _checked(name: str, views: Sequence[View]) -> list[View]:
    if not isinstance(views, Sequence) or not all(callable(view) for view in views):
        raise ValueError(f"{name} takes views, callables from data to data, got {views!r}")
    return list(views)


def _merged(plans: dict[int, Plan], choice: Tensor, data: Data, graphs: Graphs) -> Plan:
    """The plan that does to every graph g what plans[choice[g]] does, and nothing where there is no such plan."""
    of_node = choice.index_select(0, graphs.batch)  # [N]
    of_edge = of_node.index_select(0, edges_of(data)[0])  # [E]
    nodes, edges, added = [], [], []
    node_values: dict[str, Tensor] = {}
    edge_values: dict[str, Tensor] = {}
    for i, plan in plans.items():
        if plan.nodes is not None:
            nodes.append(plan.nodes | (of_node != i))
        if plan.edges is not None:
            edges.append(plan.edges | (of_edge != i))
        if plan.added is not None:
            mine = (of_node.index_select(0, plan.added[0]) == i).nonzero().view(-1)
            added.append(plan.added.index_select(1, mine))
        for values, new, mine in (
            (node_values, plan.node_values, of_node == i),
            (edge_values, plan.edge_values, of_edge == i),
        ):
            for key, value in (new or {}).items():
                old = values.get(key, data.get(key))
                if old is None and key in FILL:
                    old = torch.full_like(value, FILL[key])
                if old is not None:
                    values[key] = torch.where(mine.view(-1, *[1] * (value.dim() - 1)), value, old)
    return Plan(
        functools.reduce(torch.logical_and, nodes) if nodes else None,
        functools.reduce(torch.logical_and, edges) if edges else None,
        torch.cat(added, dim=1) if added else None,
        node_values,
        edge_values,
    )


def _merge(data: Data, views: list[Data], choice: Tensor) -> Data:
    """Every graph g of `data` as it is in views[choice[g]], in the old order of graphs."""
    parts = [graphs_of(view) for view in views]
    indices = [edges_of(view) for view in views]
    keys = [levels(view, part, index.size(1)) for view, part, index in zip(views, parts, indices, strict=True)]

    batch = torch.cat([part.batch for part in parts])
    taken = torch.cat([choice.index_select(0, part.batch) == i for i, part in enumerate(parts)])
    nodes = taken.nonzero().view(-1)
    nodes = nodes.index_select(0, batch.index_select(0, nodes).argsort(stable=True))
    number = torch.empty_like(batch).scatter_(0, nodes, torch.arange(nodes.numel(), device=nodes.device))
    first = 0
    for i, part in enumerate(parts):
        indices[i] = indices[i] + first
        first = first + part.batch.numel()
    edge_index = torch.cat(indices, dim=1)
    edges = taken.index_select(0, edge_index[0]).nonzero().view(-1)
    graph = batch.index_select(0, edge_index[0].index_select(0, edges))
    edges = edges.index_select(0, graph.argsort(stable=True))
    edge_index = number.index_select(0, edge_index.index_select(1, edges).view(-1)).view(2, -1)

    for key in list(data.keys()):
        if any(key not in view for view in views):
            del data[key]
    node_values = _rows_of_all(views, [names for names, _ in keys], [part.batch.numel() for part in parts], nodes)
    edge_values = _rows_of_all(views, [names for _, names in keys], [index.size(1) for index in indices], edges)
    ptr = pointer(count(batch.index_select(0, nodes), choice.numel()))
    set_nodes(data, node_values, nodes.numel(), ptr)
    return set_edges(data, edge_index, edge_values, edge_pointer(edge_index, ptr), nodes.numel(), ptr)


def _rows_of_all(
    views: list[Data], keys: Sequence[Collection[str]], lengths: list[int], index: Tensor
) -> dict[str, Any]:
    """Rows `index` of every attribute in `keys`, the views laid end to end, filled in views that lack it (FILL)."""
    rows: dict[str, Any] = {}
    for key in dict.fromkeys(name for names in keys for name in names):
        found = next(view[key] for view, names in zip(views, keys, strict=True) if key in names)
        if all(key in names for names in keys) and not isinstance(found, Tensor):
            rows[key] = [value for view in views for value in view[key]]
            rows[key] = [rows[key][i] for i in index.tolist()]
        elif all(key in names for names in keys) or key in FILL:
            values = [
                view[key] if key in names else found.new_full((length, *found.shape[1:]), FILL[key])
                for view, names, length in zip(views, keys, lengths, strict=True)
            ]
            dim = views[0].__cat_dim__(key, found)
            rows[key] = torch.cat(values, dim=dim).index_select(dim, index)
    return rows
