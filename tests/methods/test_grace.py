import torch
from references import grace_by_hand
from small_methods import Neighbours, identity, keep, nodes, noisy, sample

from graphcl.methods import GRACE


def test_loss_by_hand():
    data = nodes(9)
    data.x = data.x.double()
    method = GRACE(Neighbours(), identity, noisy, proj_dim=4, tau=0.3).double()
    torch.manual_seed(1)
    data2 = noisy(data)
    torch.manual_seed(1)
    loss = method.loss(data)["loss"]
    u, v = (method.project(method.encoder(view)).detach() for view in (data, data2))
    assert torch.allclose(loss, grace_by_hand(u, v, 0.3))


def test_views_that_drop_nodes_contrast_what_both_have():
    data = nodes(9)
    data.x = data.x.double()
    method = GRACE(Neighbours(), keep([0, 1, 2, 3, 4, 5]), keep([2, 3, 4, 5, 6]), proj_dim=4, tau=0.3).double()
    u = method.project(method.encoder(method.view1(data)))[2:].detach()
    v = method.project(method.encoder(method.view2(data)))[:4].detach()
    assert torch.allclose(method.loss(data)["loss"], grace_by_hand(u, v, 0.3))


def test_loss_of_a_sample_is_that_of_its_seeds():
    data = sample(5)
    data.x = data.x.double()
    method = GRACE(Neighbours(), identity, identity, proj_dim=4).double()
    z = method.project(method.encoder(data))[:5].detach()
    assert torch.allclose(method.loss(data)["loss"], grace_by_hand(z, z, 0.4))


def test_projector_is_the_authors():
    """Linear, ELU, Linear, back to the encoder's width."""
    project = GRACE(Neighbours(5), identity, identity, proj_dim=7).project
    assert [type(layer).__name__ for layer in project] == ["Linear", "ELU", "Linear"]
    assert (project[0].out_features, project[2].out_features) == (7, 5)
