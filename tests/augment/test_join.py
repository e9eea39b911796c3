"""Batches side by side are what PyG makes of all their graphs."""

from __future__ import annotations

import graphs
import pytest
import torch
from device_guards import device_clean, to_meta
from hypothesis import given, settings
from torch import Tensor
from torch_geometric.data import Batch, Data
from view_contract import assert_same

from augment import DropNodes, Identity, MaskAttributes, OneOf, PerturbEdges, PPRDiffusion, Subgraph, join

ODD = graphs.odd_batches()


def assert_joined(joined: Batch, parts: list[Data], follow: list[str] | None = None) -> None:
    """Equal to collating the graphs: attributes, slice tables, increments, and each graph by itself."""
    expected = Batch.from_data_list(parts, follow_batch=follow)
    assert_same(joined, expected)
    assert joined.num_graphs == len(parts) and type(joined) is type(expected)
    for table in ("_slice_dict", "_inc_dict"):
        ours, theirs = getattr(joined, table), getattr(expected, table)
        assert ours.keys() == theirs.keys()
        for key in ours:
            same = ours[key].equal(theirs[key]) if isinstance(ours[key], Tensor) else ours[key] == theirs[key]
            assert same, f"{table} of {key}"
    for ours, theirs in zip(joined.to_data_list(), parts, strict=True):
        assert_same(ours, theirs)


@pytest.mark.parametrize("name", list(ODD))
def test_joined_batches_are_the_batch_of_all_graphs(name):
    batch = ODD[name]
    assert_joined(join([batch, batch]), batch.to_data_list() * 2)
    assert_joined(join([batch]), batch.to_data_list())


@settings(max_examples=20, deadline=None)
@given(batch=graphs.batches(), seed=graphs.seeds)
def test_joined_views_are_the_batch_of_all_their_graphs(batch, seed):
    g = graphs.generator(seed)
    views = [DropNodes(0.4, generator=g), PerturbEdges(0.3, generator=g), Subgraph(0.5, generator=g)]
    parts = [view(batch) for view in views]
    assert_joined(join(parts), [graph for part in parts for graph in part.to_data_list()])


def test_two_graphs_alone():
    first, second = graphs.make_graph(5, graphs.ring(5)), graphs.make_graph(3, graphs.path(3), number=1)
    assert_joined(join([first, second]), [first, second])


def test_what_marks_a_neighbour_sample_is_dropped():
    graph = graphs.make_graph(5, graphs.ring(5))
    graph.batch_size, graph.num_sampled_nodes = 2, [2, 3]
    joined = join([graph, DropNodes(0.4)(graph)])
    assert joined.num_graphs == 2 and "num_sampled_nodes" not in joined and "batch_size" not in joined.to_dict()
    assert joined.num_nodes == 8 and graph.batch_size == 2


def test_followed_attributes_and_node_numbers_beside_the_edges():
    parts = [graphs.make_graph(n, graphs.ring(n), number=n) for n in (4, 5, 6)]
    for part in parts:
        part.edge_label_index = torch.tensor([[0, 1, 2], [1, 2, 3]])
        part.pair_index = torch.arange(3)
    batches = [Batch.from_data_list(some, follow_batch=["x"]) for some in (parts, parts[1:])]
    assert_joined(join(batches), [*parts, *parts[1:]], follow=["x"])


def test_own_increments_and_dimensions():
    """A user's Data says how its attributes are laid end to end."""

    class Pair(Data):
        def __inc__(self, key, value, *args, **kwargs):
            return torch.tensor([[self.x_s.size(0)], [self.x_t.size(0)]]) if key == "cross_index" else 0

        def __cat_dim__(self, key, value, *args, **kwargs):
            return {"cross_index": 1, "stacked": None}.get(key, 0)

    parts = [
        Pair(x=torch.ones(2, 1), x_s=torch.rand(n, 2), x_t=torch.rand(n + 1, 3), cross_index=torch.zeros(2, 2).long())
        for n in (2, 3, 4)
    ]
    for part in parts:
        part.stacked = torch.rand(4)
    joined = join([Batch.from_data_list(parts[:2]), Batch.from_data_list(parts[2:])])
    expected = Batch.from_data_list(parts)
    assert_same(joined, expected)
    for ours, theirs in zip(joined.to_data_list(), parts, strict=True):
        assert_same(ours, theirs)


def test_marks_and_weights_are_filled_and_the_rest_dropped():
    batch = ODD["ordinary"]
    masked, diffused = MaskAttributes(0.5)(batch), PPRDiffusion()(batch)
    chosen = OneOf([Identity(), DropNodes(0.5)])(batch)
    joined = join([batch, masked, diffused, chosen])
    n, e = batch.num_nodes, batch.num_edges
    assert joined.masked.equal(
        torch.cat([torch.zeros(n).bool(), masked.masked, torch.zeros(n + chosen.num_nodes).bool()])
    )
    ones = torch.ones(e)
    expected = torch.cat([ones, ones, diffused.edge_weight, torch.ones(chosen.num_edges)])
    assert joined.edge_weight.equal(expected)
    assert not {"edge_attr", "view_op", "edge_id"} & set(joined.keys())
    assert_same(Batch.from_data_list(joined.to_data_list()), joined)


def test_gradients_reach_every_part():
    batches = [ODD["ordinary"].clone() for _ in range(2)]
    for batch in batches:
        batch.x.requires_grad_()
    (join(batches).x.sum() * 2).backward()
    assert all(batch.x.grad.eq(2).all() for batch in batches)


def test_parts_are_left_as_they_were():
    batch = ODD["ordinary"].clone()
    before = batch.clone()
    joined = join([batch, batch])
    joined.x.zero_(), joined.edge_index.zero_()
    assert_same(batch, before)


def test_stays_on_the_device():
    batch, views = ODD["ordinary"], [DropNodes(0.3), Identity()]
    with device_clean() as mode:
        batch = to_meta(batch, mode)
        joined = join([view(batch) for view in views])
        assert joined.x.device.type == joined.batch.device.type == joined.edge_index.device.type == "meta"


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "got none; give it at least one"),
        ([Data(x=torch.ones(2, 1), batch=torch.zeros(2).long())], "Batches, or Data of one graph"),
        ([torch.ones(2)], "Batches, or Data of one graph"),
        ([ODD["ordinary"], ODD["float64"].clone().update({"x": torch.ones(20, 7)})], r"join 'x' of shapes .*\(20, 7\)"),
        ([Batch.from_data_list([Data(x=torch.ones(2, 1), tree={"a": torch.ones(1)})])], "join 'tree', a dict"),
    ],
)
def test_what_does_not_fit_is_named(parts, message):
    with pytest.raises(ValueError, match=message):
        join(parts)
