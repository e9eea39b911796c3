"""Features of the nodes: masked ones, integers, missing ones and wrong widths."""

from __future__ import annotations

import pytest
import torch
from small_encoders import FLOAT, ODD, ordinary, small
from torch import nn
from torch_geometric.data import Data


@pytest.mark.parametrize("name", FLOAT)
def test_masked_rows_hold_the_token(name):
    data, encoder = ordinary(name), small(name).double()
    assert torch.equal(encoder.token, torch.zeros(3))
    nn.init.normal_(encoder.token)
    masked = torch.arange(data.num_nodes) % 4 == 1
    by_hand = data.clone()
    by_hand.x = data.x.clone()
    by_hand.x[masked] = encoder.token.detach()
    data.masked = masked
    assert torch.equal(encoder(data), encoder(by_hand))
    encoder(data).square().sum().backward()
    assert (encoder.token.grad != 0).all()
    data.x[masked] = float("nan")  # what was masked cannot be seen
    assert encoder(data).isfinite().all()


@pytest.mark.parametrize("name", FLOAT)
def test_without_masked_rows_the_token_is_not_used(name):
    data, encoder = ordinary(name), small(name).double()
    encoder(data).sum().backward()
    assert encoder.token.grad is None


@pytest.mark.parametrize("name", FLOAT)
def test_integer_features_are_read_as_numbers(name):
    data, encoder = ODD["ordinary"].clone(), small(name)
    for dtype in (torch.uint8, torch.int64, torch.float64):  # whatever they come as
        data.x = (torch.arange(data.num_nodes * 3).view(-1, 3) % 5).to(dtype)
        asfloat = data.clone()
        asfloat.x = data.x.float()
        assert torch.equal(encoder(data), encoder(asfloat))


@pytest.mark.parametrize("name", FLOAT)
def test_missing_features_and_wrong_widths_say_what_to_do(name):
    encoder, data = small(name, in_dim=500), Data(edge_index=torch.tensor([[0], [1]]), num_nodes=2)
    with pytest.raises(ValueError, match=r"no node features \(x\); set data\.features to degree or ones"):
        encoder(data)
    data.x = torch.ones(2, 0)  # as the store gives graphs without features
    with pytest.raises(ValueError, match=r"no node features \(x\); set data\.features to degree or ones"):
        encoder(data)
    data.x = torch.ones(2, 1433)
    with pytest.raises(ValueError, match=r"features are 1433 wide, the encoder was built for 500; .* in_dim=1433"):
        encoder(data)
    data.x = torch.ones(2)
    with pytest.raises(ValueError, match=r"node features must be \[N, F\], got shape \(2,\).*unsqueeze"):
        encoder(data)
    with pytest.raises(ValueError, match=r"no node features \(x\); set data\.features"):
        small(name, in_dim=0)
