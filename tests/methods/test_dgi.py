import torch
from references import dgi_by_hand
from small_methods import Neighbours, graphs, nodes, sample, swapped

from graphcl.methods import DGI


def scores(method, h, summary):
    return torch.stack([row @ method.bilinear @ torch.sigmoid(summary) for row in h]).detach()


def small():
    return DGI(Neighbours(), swapped).double()


def test_loss_by_hand():
    data, method = nodes(9), small()
    data.x = data.x.double()
    torch.manual_seed(1)
    corrupted = method.encoder(swapped(data))
    torch.manual_seed(1)
    loss = method.loss(data)["loss"]
    h = method.encoder(data)
    wanted = dgi_by_hand(scores(method, h, h.mean(0)), scores(method, corrupted, h.mean(0)))
    assert torch.allclose(loss, wanted)


def test_every_graph_of_a_batch_has_a_summary_of_its_own():
    data, method = graphs([4, 1, 6]), small()
    data.x = data.x.double()
    torch.manual_seed(1)
    corrupted = method.encoder(swapped(data))
    torch.manual_seed(1)
    loss = method.loss(data)["loss"]
    h, positive, negative = method.encoder(data), [], []
    for graph in range(3):
        own = h[data.batch == graph]
        positive.append(scores(method, own, own.mean(0)))
        negative.append(scores(method, corrupted[data.batch == graph], own.mean(0)))
    assert torch.allclose(loss, dgi_by_hand(torch.cat(positive), torch.cat(negative)))


def test_context_of_a_sample_is_in_neither_the_summary_nor_the_scores():
    data, method = sample(5), small()
    data.x = data.x.double()
    torch.manual_seed(1)
    corrupted = method.encoder(swapped(data))[:5]
    torch.manual_seed(1)
    loss = method.loss(data)["loss"]
    h = method.encoder(data)[:5]
    wanted = dgi_by_hand(scores(method, h, h.mean(0)), scores(method, corrupted, h.mean(0)))
    assert torch.allclose(loss, wanted)
