"""The guards themselves: each kind of stray tensor is caught, and a clean step passes."""

from __future__ import annotations

import pytest
import torch
from device_guards import StrayTensor, device_clean, to_meta
from torch import Tensor, nn
from torch_geometric.data import Batch, Data


@pytest.mark.parametrize(
    "stray",
    [
        lambda x: x.sum().item(),
        lambda x: x.tolist(),
        lambda x: bool((x > 0).all()),
        lambda x: int(x[0, 0]),
        lambda x: x.cpu(),
        lambda x: x.to("cpu"),
        lambda x: torch.zeros(3),
        lambda x: torch.arange(len(x)),
        lambda x: torch.tensor([1.0, 2.0]),
        lambda x: torch.randperm(4),
    ],
)
def test_a_stray_tensor_is_caught(stray):
    real = torch.ones(4, 3)
    with device_clean() as mode:
        x = to_meta(real, mode)
        with pytest.raises(StrayTensor):
            stray(x)


def test_a_real_tensor_of_another_device_is_caught():
    left_behind = torch.ones(4, 3)
    real = torch.ones(4, 3)
    with device_clean() as mode:
        x = to_meta(real, mode)
        with pytest.raises(Exception, match=r"device|Fake"):
            x + left_behind


def test_masks_and_factories_with_a_device_pass():
    real = torch.ones(4, 3)
    with device_clean() as mode:
        x = to_meta(real, mode)
        kept = x[torch.rand(len(x), device=x.device) < 0.5]
        assert kept.device.type == "meta" and kept.shape[1] == 3
        assert torch.rand(kept.shape, generator=None, device=x.device).shape == kept.shape
        assert torch.cat([kept, x.new_zeros(2, 3)]).shape[1] == 3


def test_a_training_step_passes():
    real = torch.ones(4, 3)
    net = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 1))
    with device_clean() as mode:
        to_meta(net, mode)
        net(to_meta(real, mode)).mean().backward()
        assert all(p.grad is not None and p.grad.device.type == "meta" for p in net.parameters())


def test_a_batch_is_brought_in_and_left_as_it_was():
    batch = Batch.from_data_list([Data(x=torch.ones(2, 3), edge_index=torch.tensor([[0, 1], [1, 0]]))] * 2)
    with device_clean() as mode:
        fake = to_meta(batch, mode)
        assert type(fake) is type(batch) and fake.num_graphs == 2 and fake.edge_index.device.type == "meta"
    assert all(v.device.type == "cpu" for v in batch.to_dict().values() if isinstance(v, Tensor))
