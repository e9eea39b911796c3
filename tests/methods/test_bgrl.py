import pytest
import torch
from references import byol_by_hand
from small_methods import Neighbours, identity, keep, make, nodes, noisy, train

from graphcl.methods import BGRL


def test_loss_by_hand():
    data = nodes(9)
    data.x = data.x.double()
    method = BGRL(Neighbours(), identity, noisy, pred_hidden=4).double()
    with torch.no_grad():
        for p in method.target.parameters():
            p.add_(0.3)
    torch.manual_seed(1)
    data2 = noisy(data)
    torch.manual_seed(1)
    loss = method.loss(data)["loss"]
    p1, p2 = (method.predict(method.encoder(view)).detach() for view in (data, data2))
    t1, t2 = (method.target(view).detach() for view in (data, data2))
    assert torch.allclose(loss, byol_by_hand(p1, t2) + byol_by_hand(p2, t1))


def test_exchanging_the_views_changes_nothing():
    data = nodes(12)
    method = BGRL(Neighbours(), keep([0, 1, 2, 3, 7]), keep([1, 2, 3, 4, 5]))
    one = method.loss(data)["loss"]
    method.view1, method.view2 = method.view2, method.view1
    assert torch.allclose(one, method.loss(data)["loss"])


def test_the_target_gets_no_gradient_and_is_not_trained():
    data, method = nodes(), make("bgrl")
    before = [p.clone() for p in method.target.parameters()]
    other = noisy(data)
    method.loss(data)["loss"].backward()
    assert all(p.grad is None for p in method.target.parameters())
    torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=1.0).step()
    assert all(torch.equal(p, old) for p, old in zip(method.target.parameters(), before, strict=True))
    # of the second view only the prediction carries gradient back, never the target
    with torch.no_grad():
        for p in method.predict.parameters():
            p.zero_()
    other.x.requires_grad_()
    method.view2 = lambda _: other
    method.zero_grad()
    method.loss(data)["loss"].backward()
    assert other.x.grad is None or other.x.grad.abs().sum() == 0


@pytest.mark.parametrize(("progress", "factor"), [(1.0, 1.0), (0.5, 0.95), (1e-9, 0.9)])
def test_momentum_rises_to_one_along_a_cosine(progress, factor):
    method = BGRL(Neighbours(), identity, identity, momentum=0.9)
    before = [p.clone() for p in method.target.parameters()]
    with torch.no_grad():
        for p in method.encoder.parameters():
            p.add_(1.0)
    method.after_step(progress)
    for p, old in zip(method.target.parameters(), before, strict=True):
        assert torch.allclose(p, old + 1 - factor, atol=1e-6)


def test_it_does_not_collapse_on_a_small_graph():
    """Low loss, and yet the nodes are not all alike."""
    method, data = make("bgrl"), nodes()
    train(method, data, 60)
    z = torch.nn.functional.normalize(method.encode(data).detach(), dim=-1)
    assert (z @ z.T).mean() < 0.9
