import copy
import math
from collections import deque

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from graphcl.momentum import FeatureQueue, MemoryBank, cosine_momentum, ema_update


def unit_rows(n: int, dim: int, seed: int) -> Tensor:
    return nn.functional.normalize(torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


# --- EMA --------------------------------------------------------------------------------------------------------------


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.PReLU(), nn.Linear(6, 3))
    for _ in range(seed + 1):  # fills running statistics, and num_batches_tracked with another number for each seed
        model(torch.randn(5, 4) * (seed + 1))
    return model


@pytest.mark.parametrize("momentum", [0.0, 0.9, 1.0])
def test_ema_moves_parameters_and_float_buffers_and_copies_counters(momentum):
    target, online = network(0), network(3)
    before, wanted = copy.deepcopy(target.state_dict()), copy.deepcopy(online.state_dict())
    ema_update(target, online, momentum)
    for name, value in target.state_dict().items():
        if value.is_floating_point():
            mixed = momentum * before[name].double() + (1 - momentum) * wanted[name].double()
            torch.testing.assert_close(value.double(), mixed, rtol=1e-6, atol=1e-7)
        else:
            assert torch.equal(value, wanted[name])
        assert torch.equal(online.state_dict()[name], wanted[name])


def test_the_ema_writes_in_place_and_outside_the_graph():
    target, online = network(0), network(1)
    places = [p.data_ptr() for p in target.parameters()]
    ema_update(target, online, 0.5)
    assert [p.data_ptr() for p in target.parameters()] == places
    assert all(p.grad_fn is None and p.is_leaf for p in target.parameters())
    assert all(a is not b for a, b in zip(target.parameters(), online.parameters(), strict=True))


def test_repeated_ema_converges_to_the_online_network():
    target, online = network(0), network(2)
    for _ in range(60):
        ema_update(target, online, 0.5)
    for a, b in zip(target.parameters(), online.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_networks_of_different_shape_are_refused():
    with pytest.raises(ValueError):
        ema_update(nn.Linear(2, 3), nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)), 0.9)


@pytest.mark.parametrize("momentum", [-0.1, 1.5, math.nan])
def test_a_momentum_outside_zero_to_one_is_refused(momentum):
    with pytest.raises(ValueError, match="momentum"):
        ema_update(nn.Linear(2, 2), nn.Linear(2, 2), momentum)


def test_the_schedule_is_byols_cosine():
    """BYOL, section 3.3: tau = 1 - (1 - tau_base) (cos(pi k / K) + 1) / 2."""
    for progress in (0.0, 0.1, 0.5, 0.9, 1.0):
        wanted = 1 - (1 - 0.99) * (math.cos(math.pi * progress) + 1) / 2
        assert cosine_momentum(progress, 0.99) == pytest.approx(wanted, rel=1e-12)
    assert cosine_momentum(0.0, 0.9, 0.999) == pytest.approx(0.9)
    assert cosine_momentum(1.0, 0.9, 0.999) == pytest.approx(0.999)
    values = [cosine_momentum(step / 20, 0.9, 0.999) for step in range(21)]
    assert values == sorted(values)


# --- queue ------------------------------------------------------------------------------------------------------------


def contents(queue: FeatureQueue) -> dict[int, Tensor]:
    filled = queue.ids >= 0
    return {int(i): row for i, row in zip(queue.ids[filled], queue.items[filled], strict=True)}


@settings(max_examples=50, deadline=None)
@given(size=st.integers(1, 9), batches=st.lists(st.integers(0, 23), max_size=8), seed=st.integers(0, 99))
def test_the_queue_is_a_deque(size, batches, seed):
    """Any batch against any length, also one that wraps round or is longer than the queue: the last `size` remain."""
    queue, model, count = FeatureQueue(size, 3), deque(maxlen=size), 0
    for number, batch in enumerate(batches):
        keys, ids = unit_rows(batch, 3, seed + number), torch.arange(count, count + batch)
        queue.enqueue(keys, ids)
        model.extend(zip(ids.tolist(), keys, strict=True))
        count += batch
        held = contents(queue)
        assert int(queue.filled) == len(model) and torch.equal(queue.valid, queue.ids >= 0)
        assert sorted(held) == sorted(i for i, _ in model)
        assert int((queue.ids == -1).sum()) == size - len(model)
        for i, key in model:
            torch.testing.assert_close(held[i], key)


def test_a_new_queue_is_empty_not_random():
    queue = FeatureQueue(5, 3)
    assert (queue.ids == -1).all() and queue.items.shape == (5, 3) and (queue.items == 0).all()


def test_the_oldest_go_first():
    queue = FeatureQueue(4, 2)
    for i in range(6):
        queue.enqueue(unit_rows(1, 2, i), torch.tensor([i]))
    assert sorted(contents(queue)) == [2, 3, 4, 5]


def test_the_queue_keeps_no_gradient_and_no_reference():
    queue, keys = FeatureQueue(4, 2), unit_rows(2, 2, 1)
    leaf = keys.clone().requires_grad_()
    queue.enqueue(leaf * 1.0, torch.tensor([0, 1]))
    assert not queue.items.requires_grad
    with torch.no_grad():
        leaf.zero_()
    torch.testing.assert_close(contents(queue)[1], keys[1])


def test_half_precision_keys_enter_a_float_queue():
    queue, keys = FeatureQueue(4, 2), unit_rows(2, 2, 2)
    queue.enqueue(keys.bfloat16(), torch.tensor([0, 1]))
    assert queue.items.dtype == torch.float32
    torch.testing.assert_close(contents(queue)[0], keys[0], rtol=0.02, atol=0.01)


@settings(max_examples=25, deadline=None)
@given(size=st.integers(1, 6), before=st.integers(0, 13), after=st.integers(0, 13))
def test_a_saved_queue_goes_on_where_it_stopped(size, before, after):
    first, second = FeatureQueue(size, 3), FeatureQueue(size, 3)
    first.enqueue(unit_rows(before, 3, 1), torch.arange(before))
    second.load_state_dict(first.state_dict())
    for queue in (first, second):
        queue.enqueue(unit_rows(after, 3, 2), torch.arange(100, 100 + after))
    assert first.state_dict().keys() == second.state_dict().keys()
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])


def test_ids_of_another_number_than_keys_are_refused():
    with pytest.raises(ValueError, match="ids"):
        FeatureQueue(4, 2).enqueue(unit_rows(3, 2, 1), torch.arange(2))
    with pytest.raises(ValueError, match="2"):
        FeatureQueue(4, 2).enqueue(unit_rows(3, 5, 1), torch.arange(3))
    for size, dim in ((0, 3), (3, 0), (-1, 2)):
        with pytest.raises(ValueError):
            FeatureQueue(size, dim)


# --- bank -------------------------------------------------------------------------------------------------------------


def test_the_first_visit_stores_the_embedding_and_later_ones_blend():
    """InstDisc's bank: v <- norm(m v + (1 - m) z); a row that was never seen takes z itself."""
    bank, first, second = MemoryBank(6, 3, momentum=0.5), unit_rows(2, 3, 1), unit_rows(2, 3, 2)
    ids = torch.tensor([4, 1])
    bank.update(ids, first)
    assert torch.equal(bank.seen, torch.tensor([False, True, False, False, True, False]))
    torch.testing.assert_close(bank.items[ids], first)
    bank.update(ids, second)
    blended = (0.5 * first + 0.5 * second).double()
    torch.testing.assert_close(
        bank.items[ids].double(), blended / blended.norm(dim=1, keepdim=True), rtol=1e-5, atol=1e-6
    )
    assert (bank.items[~bank.seen] == 0).all()


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_banks_momentum_weighs_the_old(momentum):
    bank, first, second = MemoryBank(3, 4, momentum=momentum), unit_rows(3, 4, 3), unit_rows(3, 4, 4)
    bank.update(torch.arange(3), first)
    bank.update(torch.arange(3), second)
    wanted = nn.functional.normalize(momentum * first + (1 - momentum) * second, dim=1)
    torch.testing.assert_close(bank.items, wanted, rtol=1e-5, atol=1e-6)


def test_every_row_of_the_bank_has_length_one():
    bank = MemoryBank(5, 4)
    bank.update(torch.arange(5), 7 * unit_rows(5, 4, 5))
    bank.update(torch.arange(3), 0.1 * unit_rows(3, 4, 6))
    torch.testing.assert_close(bank.items.norm(dim=1), torch.ones(5))


def test_rows_outside_the_batch_stay():
    bank = MemoryBank(5, 4)
    bank.update(torch.arange(5), unit_rows(5, 4, 7))
    before = bank.items.clone()
    bank.update(torch.tensor([2]), unit_rows(1, 4, 8).requires_grad_())
    others = torch.tensor([0, 1, 3, 4])
    assert torch.equal(bank.items[others], before[others]) and not torch.equal(bank.items[2], before[2])
    assert not bank.items.requires_grad


def test_the_bank_is_saved():
    bank, other = MemoryBank(5, 4), MemoryBank(5, 4)
    bank.update(torch.tensor([0, 3]), unit_rows(2, 4, 9))
    other.load_state_dict(bank.state_dict())
    assert torch.equal(other.items, bank.items) and torch.equal(other.seen, bank.seen)


def test_of_an_item_given_twice_the_last_row_counts():
    bank, z = MemoryBank(4, 3), unit_rows(3, 3, 10)
    bank.update(torch.tensor([2, 0, 2]), z)
    torch.testing.assert_close(bank.items[[2, 0]], z[[2, 1]])
    assert torch.equal(bank.valid, torch.tensor([True, False, True, False]))


def test_half_precision_embeddings_enter_a_float_bank():
    bank, z = MemoryBank(4, 3), unit_rows(2, 3, 11)
    for _ in range(2):
        bank.update(torch.tensor([1, 3]), z.bfloat16())
    assert bank.items.dtype == torch.float32
    torch.testing.assert_close(bank.items[[1, 3]], z, rtol=0.02, atol=0.01)


def test_a_bank_that_cannot_be_is_refused():
    for size, dim, momentum in ((0, 3, 0.5), (3, 0, 0.5), (3, 3, -0.1), (3, 3, 1.5)):
        with pytest.raises(ValueError):
            MemoryBank(size, dim, momentum)
    with pytest.raises(ValueError, match="ids"):
        MemoryBank(4, 2).update(torch.arange(3), unit_rows(2, 2, 12))


def test_a_key_without_an_item_leaves_its_slot_empty():
    queue = FeatureQueue(4, 2)
    queue.enqueue(unit_rows(3, 2, 0), torch.tensor([7, -1, 8]))
    assert queue.valid.tolist() == [True, False, True, False] and (queue.items[1] == 0).all()
    assert sorted(contents(queue)) == [7, 8]
