from __future__ import annotations

import graphs
import torch
from augment_references import sigmas
from hypothesis import given, settings

from augment import ShuffleNodes


@settings(max_examples=20, deadline=None)
@given(batch=graphs.batches(features=["float", "double", "integer"]), seed=graphs.seeds)
def test_every_graph_keeps_its_rows_and_its_edges(batch, seed):
    out = ShuffleNodes(generator=graphs.generator(seed))(batch)
    assert out.edge_index.equal(batch.edge_index) and out.batch.equal(batch.batch) and out.n_id.equal(batch.n_id)
    for before, after in zip(batch.to_data_list(), out.to_data_list(), strict=True):
        assert sorted(after.x.tolist()) == sorted(before.x.tolist())


def test_every_order_is_equally_likely():
    times = 6000
    batch = graphs.copies(graphs.make_graph(3, []), times)
    order = ShuffleNodes(generator=graphs.generator(1))(batch).x[:, 0].view(times, 3).argsort(1)
    counts = torch.bincount(order @ torch.tensor([9, 3, 1]), minlength=27)
    assert (counts > 0).sum() == 6 and all(sigmas(int(c), times, 1 / 6) < 5 for c in counts[counts > 0])


def test_rows_move_as_wholes():
    batch = graphs.batch_of([(50, [], True)])
    out = ShuffleNodes(generator=graphs.generator(1))(batch)
    assert set(map(tuple, out.x.tolist())) == set(map(tuple, batch.x.tolist())) and not out.x.equal(batch.x)
