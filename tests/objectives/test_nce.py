import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from references import cosine, instdisc_by_hand
from torch import Tensor

from graphcl.objectives import draw_negatives, nce, nce_constant


def rows(n: int, dim: int, seed: int) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def problem(batch: int, items: int, m: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """z [N, 4], bank [n, 4], ids [N], negatives [N, m]."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, items, (batch,), generator=generator)
    negatives = torch.randint(0, items, (batch, m), generator=generator)
    return rows(batch, 4, seed + 1), rows(items, 4, seed + 2), ids, negatives


def value_and_gradient(loss, z: Tensor) -> tuple[Tensor, Tensor]:
    leaf = z.detach().clone().requires_grad_()
    value = loss(leaf)
    return value.detach(), torch.autograd.grad(value, leaf)[0]


def assert_same(ours: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> None:
    for a, b in zip(ours, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("tau", [0.03, 0.07, 0.5, 5.0])
@pytest.mark.parametrize(("batch", "items", "m"), [(1, 2, 1), (3, 7, 5), (5, 4, 9)])
def test_nce_is_the_papers_sum(tau, batch, items, m):
    z, bank, ids, negatives = problem(batch, items, m)
    constant = torch.tensor(float(items) * math.exp(0.3 / tau), dtype=torch.float64)
    assert_same(
        value_and_gradient(lambda a: nce(a, bank, ids, tau, negatives=negatives, z_const=constant), z),
        value_and_gradient(lambda a: instdisc_by_hand(a, bank[ids], bank[negatives], tau, items, constant), z),
    )


@pytest.mark.parametrize("tau", [0.07, 0.5])
def test_the_constant_is_n_times_the_mean_over_positives_and_negatives(tau):
    z, bank, ids, negatives = problem(4, 6, 5)
    chosen = [[int(ids[i]), *negatives[i].tolist()] for i in range(4)]
    terms = [math.exp(cosine(z[i], bank[j]).item() / tau) for i in range(4) for j in chosen[i]]
    constant = nce_constant(z, bank, ids, tau, negatives=negatives)
    assert constant.item() == pytest.approx(6 * sum(terms) / len(terms), rel=1e-6)
    # left out, it is estimated from the batch, and no gradient goes through it
    assert_same(
        value_and_gradient(lambda a: nce(a, bank, ids, tau, negatives=negatives), z),
        value_and_gradient(lambda a: nce(a, bank, ids, tau, negatives=negatives, z_const=constant), z),
    )


def test_neither_order_nor_length_of_the_rows_matters():
    z, bank, ids, negatives = problem(6, 9, 4)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    lengths = torch.logspace(-3, 3, 6, dtype=torch.float64)[:, None]
    got = nce((z * lengths)[order], 7 * bank, ids[order], negatives=negatives[order].flip(1))
    assert got.item() == pytest.approx(nce(z, bank, ids, negatives=negatives).item(), rel=1e-9)


def test_the_numbering_of_the_items_does_not_matter():
    z, bank, ids, negatives = problem(6, 9, 4)
    number = torch.randperm(9, generator=torch.Generator().manual_seed(5))  # item i is called number[i]
    renamed = torch.empty_like(bank)
    renamed[number] = bank
    got = nce(z, renamed, number[ids], negatives=number[negatives])
    assert got.item() == pytest.approx(nce(z, bank, ids, negatives=negatives).item(), rel=1e-12)


def test_an_embedding_near_its_own_item_costs_less():
    _, bank, ids, negatives = problem(6, 30, 16)
    constant = 30.0
    near, far = (nce(sign * bank[ids], bank, ids, 0.5, negatives=negatives, z_const=constant) for sign in (1, -1))
    assert near < far


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 99), tau=st.sampled_from([0.07, 0.5]))
def test_items_without_a_vector_are_left_out(seed, tau):
    """What the bank holds for them is never read: other values there change nothing, and terms on them count 0."""
    z, bank, ids, negatives = problem(5, 8, 6, seed)
    valid = torch.rand(8, generator=torch.Generator().manual_seed(seed)) < 0.6
    poisoned = bank.clone()
    poisoned[~valid] = 1e6

    def loss(table: Tensor):
        return lambda a: nce(a, table, ids, tau, negatives=negatives, z_const=20.0, valid=valid)

    ours = value_and_gradient(loss(bank), z)
    assert_same(value_and_gradient(loss(poisoned), z), ours)
    p = [[(cosine(z[i], bank[j]) / tau).exp().item() / 20 for j in range(8)] for i in range(5)]
    noise, total = 6 / 8, 0.0
    for i in range(5):
        own = int(ids[i])
        total -= math.log(p[i][own] / (p[i][own] + noise)) if valid[own] else 0
        total -= sum(math.log(noise / (p[i][j] + noise)) for j in negatives[i].tolist() if valid[j])
    assert ours[0].item() == pytest.approx(total / 5, rel=1e-7, abs=1e-9)


def test_an_entirely_empty_bank_is_finite():
    z, bank, ids, negatives = problem(3, 5, 4)
    value, gradient = value_and_gradient(
        lambda a: nce(a, torch.zeros_like(bank), ids, negatives=negatives, valid=torch.zeros(5, dtype=torch.bool)), z
    )
    assert value == 0 and (gradient == 0).all()


def test_the_bank_carries_no_gradient():
    z, bank, ids, negatives = problem(3, 5, 4)
    bank.requires_grad_()
    nce(z.requires_grad_(), bank, ids, negatives=negatives).backward()
    assert bank.grad is None and z.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("tau", [0.01, 0.07, 0.5])
def test_half_precision_gives_the_float32_loss(dtype, tau):
    z, bank, ids, negatives = problem(16, 20, 8)
    z, bank = z.to(dtype), bank.to(dtype)
    got = value_and_gradient(lambda a: nce(a, bank, ids, tau, negatives=negatives), z)
    wanted = value_and_gradient(lambda a: nce(a, bank.float(), ids, tau, negatives=negatives), z.float())
    assert got[0].item() == pytest.approx(wanted[0].item(), rel=0.01)
    torch.testing.assert_close(got[1].float(), wanted[1], rtol=0.05, atol=0.02 * wanted[1].abs().max().item())


@pytest.mark.parametrize("tau", [0.01, 0.5])
def test_zero_rows_stay_finite(tau):
    z, bank, ids, negatives = problem(4, 6, 5)
    z[0], bank[ids[1]] = 0, 0
    for tensor in value_and_gradient(lambda a: nce(a.float(), bank.float(), ids, tau, negatives=negatives), z):
        assert tensor.isfinite().all()


def test_calling_twice_gives_the_same():
    z, bank, ids, negatives = problem(4, 6, 5)
    assert nce(z, bank, ids, negatives=negatives).item() == nce(z, bank, ids, negatives=negatives).item()


@pytest.mark.parametrize("tau", [0, -1.0, math.nan])
def test_a_tau_that_is_not_positive_is_refused(tau):
    z, bank, ids, negatives = problem(3, 5, 4)
    with pytest.raises(ValueError, match=r"tau must be > 0, got (0|-1\.0|nan)"):
        nce(z, bank, ids, tau, negatives=negatives)


def test_shapes_that_do_not_fit_are_refused():
    z, bank, ids, negatives = problem(3, 5, 4)
    with pytest.raises(ValueError, match="negatives"):
        nce(z, bank, ids, negatives=negatives[:2])
    with pytest.raises(ValueError, match="ids"):
        nce(z, bank, ids[:2], negatives=negatives)
    with pytest.raises(ValueError, match=r"bank"):
        nce(z, bank[:, :2], ids, negatives=negatives)


@settings(max_examples=25, deadline=None)
@given(size=st.integers(2, 9), batch=st.integers(1, 6), count=st.integers(1, 20), seed=st.integers(0, 99))
def test_drawn_negatives_are_other_items(size, batch, count, seed):
    ids = torch.randint(0, size, (batch,), generator=torch.Generator().manual_seed(seed))
    first, again = (draw_negatives(ids, size, count, generator=torch.Generator().manual_seed(seed)) for _ in range(2))
    assert torch.equal(first, again) and first.shape == (batch, count)
    assert (first >= 0).all() and (first < size).all() and (first != ids[:, None]).all()


def test_drawn_negatives_are_uniform_over_the_others():
    ids, draws = torch.tensor([0, 3, 5]), 60_000
    drawn = draw_negatives(ids, 6, draws, generator=torch.Generator().manual_seed(1))
    for row, own in zip(drawn, ids.tolist(), strict=True):
        counts = torch.bincount(row, minlength=6)
        others = counts[[i for i in range(6) if i != own]].double()
        sigma = math.sqrt(draws * 0.2 * 0.8)
        assert ((others - draws / 5).abs() < 5 * sigma).all()


@pytest.mark.parametrize("ids", [[0, 4], [-1, 2]])
def test_negatives_are_drawn_for_items_of_the_bank(ids):
    with pytest.raises(ValueError, match=rf"ids must be items 0 to 3, they go from {min(ids)} to {max(ids)}"):
        draw_negatives(torch.tensor(ids), 4, 2)


@pytest.mark.parametrize("z_const", [0.0, -1.0, math.nan, torch.tensor(-1.0)])
def test_a_constant_that_is_no_sum_of_exponentials_is_refused(z_const):
    z, bank, ids, negatives = problem(2, 4, 3)
    with pytest.raises(ValueError, match=r"z_const must be > 0, got .*; nce_constant estimates it"):
        nce(z, bank, ids, negatives=negatives, z_const=z_const)
