import threading
import time

import pytest
import torch
from torch_geometric.data import Data

from graphcl.data.loaders import Loader
from graphcl.data.store import GraphStore


def store_of(graphs: int, y=None) -> GraphStore:
    return GraphStore.from_graphs(
        [
            Data(x=torch.full((1 + i % 3, 1), float(i)), edge_index=torch.zeros(2, 1).long(), y=torch.tensor([i % 2]))
            for i in range(graphs)
        ]
    )._like(**({} if y is None else {"y": y}))


def one_graph() -> Data:
    return Data(x=torch.randn(5, 2), edge_index=torch.randint(5, (2, 7)), y=torch.arange(5), names=list("abcde"))


def flat(parts: list[list[int]]) -> list[int]:
    return [i for part in parts for i in part]


def ids(batches) -> list[list[int]]:
    return [batch.graph_id.tolist() for batch in batches]


def test_an_epoch_sees_every_graph_once():
    loader = Loader(store_of(10), 4)
    seen = ids(loader.epoch(0))
    assert [len(part) for part in seen] == [4, 4, 2] and len(loader) == 3 and loader.num_items == 10
    assert sorted(flat(seen)) == list(range(10))


def test_the_order_depends_on_seed_and_epoch_alone():
    first, second = Loader(store_of(20), 6, seed=3), Loader(store_of(20), 6, seed=3)
    assert ids(first.epoch(0)) != ids(first.epoch(1))
    torch.manual_seed(99)
    torch.rand(5)
    assert ids(second.epoch(1)) == ids(first.epoch(1))
    assert ids(Loader(store_of(20), 6, seed=4).epoch(1)) != ids(first.epoch(1))
    state = torch.get_rng_state()
    ids(first.epoch(2))
    assert torch.equal(state, torch.get_rng_state())


def test_seeds_that_differ_in_high_bits_only_differ():
    # torch's CPU generator ignores all but the low 32 bits of a seed
    assert ids(Loader(store_of(20), 6, seed=1).epoch(0)) != ids(Loader(store_of(20), 6, seed=1 + (7 << 32)).epoch(0))


@pytest.mark.parametrize("start", [0, 1, 3, 4])
def test_a_resumed_epoch_goes_on_where_it_stopped(start):
    loader = Loader(store_of(20), 6)
    assert ids(loader.epoch(5, start=start)) == ids(loader.epoch(5))[start:]


def test_start_beyond_the_epoch():
    with pytest.raises(ValueError, match=r"start must be in 0\.\.4"):
        next(Loader(store_of(20), 6).epoch(0, start=5))


def test_in_order_and_unshuffled():
    loader = Loader(store_of(5), 2, shuffle=False)
    assert ids(loader.in_order()) == ids(loader) == ids(loader.epoch(7)) == [[0, 1], [2, 3], [4]]
    assert ids(Loader(store_of(5), 2).in_order()) == [[0, 1], [2, 3], [4]]


def test_without_batch_size_all_is_one_batch():
    assert [sorted(part) for part in ids(Loader(store_of(5)).epoch(0))] == [[0, 1, 2, 3, 4]]


@pytest.mark.parametrize(("graphs", "size", "world"), [(20, 6, 2), (21, 6, 2), (25, 6, 2), (23, 9, 3), (5, None, 2)])
def test_processes_share_a_global_batch(graphs, size, world):
    store = store_of(graphs)
    whole = ids(Loader(store, size).epoch(1))
    shares = [ids(Loader(store, size, rank=rank, world=world).epoch(1)) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1 and len(shares[0]) == len(Loader(store, size, world=world))
    for step, parts in enumerate(zip(*shares, strict=True)):
        assert len({len(part) for part in parts}) == 1
        joined = flat(parts)
        assert joined == whole[step][: len(joined)] and len(whole[step]) - len(joined) < world
    assert len(whole) - len(shares[0]) <= 1


def test_in_order_gives_every_process_all():
    assert ids(Loader(store_of(5), 2, rank=1, world=2).in_order()) == [[0, 1], [2, 3], [4]]


def test_labels_are_hidden():
    batch = next(iter(Loader(store_of(6))))
    assert batch.y.tolist() == [-1] * 6
    loader = Loader(store_of(6), visible=torch.tensor([1, 4]))
    for batch in (*loader.epoch(0), *loader.in_order()):
        expected = [i % 2 if i in (1, 4) else -1 for i in batch.graph_id.tolist()]
        assert batch.y.tolist() == expected


def test_float_labels_are_hidden_by_nan():
    y = torch.arange(12.0).reshape(6, 2)
    batch = next(iter(Loader(store_of(6, y=y), shuffle=False, visible=torch.tensor([3]))))
    assert batch.y[3].tolist() == [6.0, 7.0] and batch.y.isnan().sum() == 10


def test_the_source_keeps_its_labels():
    store, data = store_of(6), one_graph()
    next(iter(Loader(store))), next(iter(Loader(data)))
    assert store.y.tolist() == [0, 1, 0, 1, 0, 1] and data.y.tolist() == [0, 1, 2, 3, 4]


def test_poisoned_hidden_labels_change_nothing():
    clean, poisoned = store_of(6), store_of(6)
    poisoned.y[2:] = 77
    visible = torch.tensor([0, 1])
    for a, b in zip(Loader(clean, 2, visible=visible), Loader(poisoned, 2, visible=visible), strict=True):
        assert torch.equal(a.y, b.y)


def test_one_graph():
    data = one_graph()
    loader = Loader(data, visible=torch.tensor([2]))
    assert len(loader) == 1 and loader.num_items == 5
    (first,), (second,) = loader.epoch(0), loader.in_order()
    assert first is not second and first.x is second.x
    assert first.n_id.tolist() == [0, 1, 2, 3, 4] and first.graph_id.tolist() == [0]
    assert first.y.tolist() == [-1, -1, 2, -1, -1]
    assert "names" not in first and "n_id" not in data
    first.x = None
    assert second.x is not None and next(iter(loader)).x is not None


def test_one_graph_without_features_or_labels():
    data = next(iter(Loader(Data(edge_index=torch.zeros(2, 0).long(), num_nodes=3))))
    assert data.num_nodes == 3 and data.y is None


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (store_of(4), {"batch_size": 0}, "batch_size must be at least 1, got 0"),
        (store_of(4), {"batch_size": 3, "world": 2}, "batch_size 3 cannot be shared by 2 processes"),
        (store_of(4), {"rank": 2, "world": 2}, r"rank must be in 0\.\.1, got 2"),
        (store_of(4), {"visible": torch.tensor([4])}, "visible goes from 4 to 4, rows from 0 to 3"),
        (store_of(4), {"visible": torch.ones(4).bool()}, r"visible must be row numbers \[n\], got torch.bool"),
        (one_graph(), {"world": 2}, "one graph cannot be shared by 2 processes"),
        (one_graph(), {"batch_size": 2}, "batch_size 2 is for many graphs"),
        (one_graph(), {"visible": torch.tensor([5])}, "visible goes from 5 to 5, rows from 0 to 4"),
    ],
)
def test_mistakes(source, options, message):
    with pytest.raises(ValueError, match=message):
        Loader(source, **options)


def test_one_graph_has_its_edges_sorted_with_all_that_belongs_to_them():
    nodes, edges = 7, 7  # as many of one as of the other
    data = Data(x=torch.randn(nodes, 2), edge_index=torch.randint(nodes, (2, edges)), edge_attr=torch.randn(edges, 3))
    data.edge_weight, data.edge_kind, data.train_mask = torch.rand(edges), torch.arange(edges), torch.rand(nodes) < 0.5
    data.edge_index[:, 3] = data.edge_index[:, 5]  # equal ones keep their order
    before = data.clone()
    out = next(iter(Loader(data)))
    pairs = [(dst, src) for src, dst in data.edge_index.t().tolist()]
    order = torch.tensor(sorted(range(edges), key=lambda i: pairs[i]))
    assert torch.equal(out.edge_index, data.edge_index[:, order]) and torch.equal(out.edge_kind, order)
    assert torch.equal(out.edge_attr, data.edge_attr[order]) and torch.equal(out.edge_weight, data.edge_weight[order])
    assert torch.equal(out.x, data.x) and torch.equal(out.train_mask, data.train_mask)
    assert all(torch.equal(data[key], before[key]) for key in before.keys())  # noqa: SIM118


def test_one_graph_without_any_edges_attribute():
    assert next(iter(Loader(Data(x=torch.ones(2, 1))))).edge_index is None


# --- a thread gathers one batch ahead (private: what a CUDA device that is too small for the store switches on) -------


def ahead(store: GraphStore, size: int, **options) -> Loader:
    loader = Loader(store, size, **options)
    assert not loader._ahead  # never on the CPU
    loader._ahead = True
    return loader


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "graphcl-gather"]


def test_batches_made_ahead_are_the_same():
    store = store_of(20)
    plain, threaded = Loader(store, 6, seed=1), ahead(store, 6, seed=1)
    for ours, theirs in ((threaded.epoch(3, 1), plain.epoch(3, 1)), (threaded.in_order(), plain.in_order())):
        for a, b in zip(ours, theirs, strict=True):
            assert all(torch.equal(a[key], b[key]) for key in b.keys())  # noqa: SIM118
    assert threads() == []


def test_no_more_than_one_batch_is_made_ahead(monkeypatch):
    made, loader = [], ahead(store_of(20), 2)
    gather = loader._pinned
    monkeypatch.setattr(loader, "_pinned", lambda index: made.append(1) or gather(index))
    batches = loader.epoch(0)
    for used in range(1, 6):
        next(batches)
        deadline = time.monotonic() + 5
        while len(made) < used + 1 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.01)
        assert len(made) == used + 1
    batches.close()


def test_leaving_an_epoch_early_ends_the_thread():
    for batch in (batches := ahead(store_of(20), 2).epoch(0)):
        assert batch.num_graphs == 2 and threads() == ["graphcl-gather"]
        break
    batches.close()
    assert threads() == []
    batches = ahead(store_of(20), 2).epoch(0)
    next(batches)
    del batches
    assert threads() == []
    ahead(store_of(20), 2).epoch(0).close()  # never begun
    assert threads() == []


def test_what_goes_wrong_in_the_thread_is_raised_in_the_loop(monkeypatch):
    loader = ahead(store_of(20), 2, shuffle=False)
    gather = loader._pinned

    def failing(index):
        if 4 in index:
            raise OSError("the disk is gone")
        return gather(index)

    monkeypatch.setattr(loader, "_pinned", failing)
    seen = []
    with pytest.raises(OSError, match="the disk is gone"):
        for batch in loader.epoch(0):
            seen += batch.graph_id.tolist()
    assert seen == [0, 1, 2, 3] and threads() == []


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_a_store_that_does_not_fit_is_gathered_ahead(monkeypatch):
    monkeypatch.setattr("graphcl.data.loaders._fits", lambda *_: False)
    loader = Loader(store_of(20), 6, device="cuda")
    assert loader._ahead and loader.source.device.type == "cpu" and loader._pinned(torch.tensor([1])).x.is_pinned()
    for a, b in zip(loader.epoch(1), Loader(store_of(20), 6).epoch(1), strict=True):
        assert all(a[key].is_cuda and torch.equal(a[key].cpu(), b[key]) for key in b.keys())  # noqa: SIM118


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_the_batches_are_the_same():
    for source in (store_of(9), one_graph()):
        size = 4 if isinstance(source, GraphStore) else None
        for a, b in zip(Loader(source, size), Loader(source, size, device="cuda"), strict=True):
            assert all(b[key].is_cuda and torch.equal(a[key], b[key].cpu()) for key in a.keys())  # noqa: SIM118


def test_labels_without_a_minus_one_are_hidden_by_one():
    for y in (torch.tensor([True, False, True]), torch.tensor([1, 0, 1], dtype=torch.uint8)):
        data = Data(x=torch.ones(3, 1), edge_index=torch.zeros(2, 0, dtype=torch.long), y=y)
        assert next(iter(Loader(data, visible=torch.tensor([0])))).y.tolist() == [1, -1, -1]
