import pytest
import torch
from references import moco_by_hand
from small_methods import Rows, graphs, identity, keep, make, nodes, noisy

from graphcl.encoders.readout import Readout
from graphcl.methods import MoCo


def small(queue=6, **settings):
    return MoCo(Rows(), identity, identity, queue=queue, proj_dim=4, **settings)


def test_loss_by_hand_against_the_keys_of_the_batch_before():
    method = small(queue=9, tau=0.3, momentum=0.5).double()
    data = nodes(12)
    data.x = data.x.double()
    first, second = keep([0, 1, 2, 3, 4])(data), keep([3, 4, 5, 6, 7, 8])(data)  # 3 and 4 are in both
    assert method.loss(first)["loss"] == 0  # nothing in the queue yet
    keys = method.key_project(method.key_encoder(first)).detach()
    method.after_step(0.5)
    with torch.no_grad():
        for parameter in method.encoder.parameters():
            parameter.add_(0.1)
    q = method.project(method.encoder(second)).detach()
    k = method.key_project(method.key_encoder(second)).detach()
    wanted = moco_by_hand(q, k, keys, 0.3, second.n_id.tolist(), first.n_id.tolist())
    assert torch.allclose(method.loss(second)["loss"], wanted)


def test_own_keys_are_no_negatives():
    """The queue holds one key, the query's own: there is nothing to tell it from."""
    method, data = small(), nodes(12)
    method.loss(keep([3])(data))
    method.after_step(0.5)
    assert method.loss(keep([3])(data))["loss"] == 0
    assert method.loss(keep([4])(data))["loss"] > 0


def test_graphs_are_known_by_graph_id():
    method = MoCo(Rows(), identity, identity, Readout(), queue=8, proj_dim=4)
    method.loss(graphs())
    method.after_step(1.0)
    assert sorted(method.queue.ids.tolist()) == list(range(8))


def test_keys_are_enqueued_after_the_step_all_of_them():
    method, data = small(queue=9), nodes(12)
    method.loss(keep([0, 1, 2])(data))
    method.loss(keep([5, 6])(data))  # a second batch whose gradient is added
    assert (method.queue.ids == -1).all()
    method.after_step(0.5)
    assert method.queue.ids.tolist() == [0, 1, 2, 5, 6, -1, -1, -1, -1]
    method.after_step(0.6)
    assert int(method.queue.filled) == 5


def test_keys_of_dropped_nodes_are_not_enqueued():
    method, data = small(queue=9), nodes(12)
    method.view1, method.view2 = keep([0, 1, 2, 3]), keep([8, 3, 1])
    method.loss(data)
    method.after_step(0.5)
    assert method.queue.ids[:3].tolist() == [1, 3, -1]
    key = torch.nn.functional.normalize(method.key_project(method.key_encoder(data)).detach(), dim=-1)
    # (the EMA of equal weights changes nothing, so the keys can be computed afterwards)
    assert torch.allclose(method.queue.items[:2], key[[1, 3]], atol=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_key_encoder_follows_by_momentum(momentum):
    method, data = small(momentum=momentum), nodes()
    start = [p.clone() for p in method.key_encoder.parameters()]
    with torch.no_grad():
        for p in method.encoder.parameters():
            p.add_(1.0)
    method.loss(data)
    method.after_step(0.5)
    for before, key in zip(start, method.key_encoder.parameters(), strict=True):
        assert torch.allclose(key, before + (1 - momentum), atol=1e-6)


def test_gradient_goes_through_the_query_alone():
    method, data = make("moco on nodes"), nodes()
    method.loss(data)
    method.after_step(0.1)
    other = noisy(data)
    other.x.requires_grad_()
    method.view2 = lambda _: other
    method.loss(data)["loss"].backward()
    assert not any(keys.requires_grad for keys, _ in method.fresh)
    assert other.x.grad is None
    assert all(p.grad is None for p in method.key_encoder.parameters())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in method.encoder.parameters())
