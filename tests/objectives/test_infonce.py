import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_checks import rows, values_and_gradients
from references import (
    cosine,
    grace_by_hand,
    graphcl_code_by_hand,
    infonce_by_hand,
    moco_by_hand,
    rows_as_their_own_positives,
    simclr_by_hand,
)
from torch import Tensor

from graphcl.objectives import InfoNCE, NTXent, graphcl_code, infonce, ntxent, queue_infonce

TAUS = [0.01, 0.07, 0.5, 5.0]
# Smallest norm of a row is about 1 here, so a float64 reference and float64 code agree to rounding.
SIZES = [(1, 3), (2, 1), (3, 5), (7, 4)]


def assert_same(ours: list[Tensor], reference: list[Tensor]) -> None:
    for got, wanted in zip(ours, reference, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-7, atol=1e-9)


# --- the papers' sums -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tau", TAUS)
@pytest.mark.parametrize("symmetric", [True, False])
def test_infonce_is_the_papers_sum(tau, size, symmetric):
    z1, z2 = rows(*size, seed=1), rows(*size, seed=2)
    assert_same(
        values_and_gradients(lambda a, b: infonce(a, b, tau, symmetric=symmetric), z1, z2),
        values_and_gradients(lambda a, b: infonce_by_hand(a, b, tau, symmetric), z1, z2),
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tau", TAUS)
@pytest.mark.parametrize("paper", [simclr_by_hand, grace_by_hand])
def test_ntxent_is_simclrs_and_graces_sum(tau, size, paper):
    z1, z2 = rows(*size, seed=3), rows(*size, seed=4)
    assert_same(
        values_and_gradients(lambda a, b: ntxent(a, b, tau), z1, z2),
        values_and_gradients(lambda a, b: paper(a, b, tau), z1, z2),
    )


@pytest.mark.parametrize("size", SIZES[1:])
@pytest.mark.parametrize("tau", TAUS)
def test_graphcl_code_is_the_published_codes_sum(tau, size):
    z1, z2 = rows(*size, seed=5), rows(*size, seed=6)
    assert_same(
        values_and_gradients(lambda a, b: graphcl_code(a, b, tau), z1, z2),
        values_and_gradients(lambda a, b: graphcl_code_by_hand(a, b, tau), z1, z2),
    )


def test_graphcl_code_falls_below_zero_where_infonce_does_not():
    z = torch.eye(4)
    assert graphcl_code(z, z, 0.2) < 0 < infonce(z, z, 0.2)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 6),
    slots=st.lists(st.integers(-1, 8), min_size=1, max_size=7),
    tau=st.sampled_from(TAUS),
    seed=st.integers(0, 99),
)
def test_queue_infonce_is_mocos_sum_without_empty_and_own_slots(n, slots, tau, seed):
    q, k, queue = rows(n, 4, seed), rows(n, 4, seed + 1), rows(len(slots), 4, seed + 2)
    ids = torch.randint(0, 9, (n,), generator=torch.Generator().manual_seed(seed))
    ours = values_and_gradients(lambda a: queue_infonce(a, k, queue, tau, ids=ids, queue_ids=torch.tensor(slots)), q)
    wanted = values_and_gradients(lambda a: moco_by_hand(a, k, queue, tau, ids.tolist(), slots), q)
    assert_same(ours, wanted)


def test_queue_infonce_without_ids_counts_every_slot():
    q, k, queue = rows(3, 4, 7), rows(3, 4, 8), rows(5, 4, 9)
    assert queue_infonce(q, k, queue).item() == pytest.approx(moco_by_hand(q, k, queue, 0.07).item(), rel=1e-9)


# --- properties -------------------------------------------------------------------------------------------------------

OBJECTIVES = {
    "infonce": infonce,
    "infonce one way": lambda a, b, tau=0.5: infonce(a, b, tau, symmetric=False),
    "ntxent": ntxent,
    "graphcl_code": graphcl_code,
    "queue_infonce": lambda a, b, tau=0.5: queue_infonce(a, b, rows(9, a.shape[1], 99).to(a.dtype), tau),
}
each_objective = pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES.keys())


@each_objective
def test_the_order_of_the_rows_does_not_matter(objective):
    z1, z2 = rows(9, 5, 10), rows(9, 5, 11)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(12))
    assert objective(z1[order], z2[order]).item() == pytest.approx(objective(z1, z2).item(), rel=1e-12)


@each_objective
def test_the_length_of_the_rows_does_not_matter(objective):
    z1, z2 = rows(9, 5, 13), rows(9, 5, 14)
    lengths = torch.logspace(-3, 3, 9, dtype=torch.float64)[:, None]
    assert objective(z1 * lengths, z2 * lengths.flip(0)).item() == pytest.approx(objective(z1, z2).item(), rel=1e-9)


@pytest.mark.parametrize("objective", [infonce, ntxent])
def test_the_views_may_be_swapped(objective):
    z1, z2 = rows(9, 5, 15), rows(9, 5, 16)
    assert objective(z1, z2, 0.2).item() == pytest.approx(objective(z2, z1, 0.2).item(), rel=1e-12)


def test_one_direction_is_not_the_other():
    z1, z2 = rows(9, 5, 17), rows(9, 5, 18)
    there, back = infonce(z1, z2, symmetric=False).item(), infonce(z2, z1, symmetric=False).item()
    assert there != pytest.approx(back, rel=1e-3)
    assert infonce(z1, z2).item() == pytest.approx((there + back) / 2, rel=1e-12)


@pytest.mark.parametrize("tau", TAUS)
@pytest.mark.parametrize("n", [1, 2, 8, 33])
def test_equal_rows_cost_the_log_of_the_candidates(n, tau):
    z = torch.ones(n, 3)
    assert infonce(z, z, tau).item() == pytest.approx(math.log(n), abs=1e-5)
    assert ntxent(z, z, tau).item() == pytest.approx(math.log(2 * n - 1), abs=1e-5)
    assert queue_infonce(z, z, torch.ones(5, 3), tau).item() == pytest.approx(math.log(6), abs=1e-5)


def test_one_pair_has_nothing_to_tell_it_from():
    z1, z2 = rows(1, 4, 19), rows(1, 4, 20)
    for objective in (infonce, ntxent):
        value, *gradients = values_and_gradients(objective, z1, z2)
        assert value == 0
        assert all((g == 0).all() for g in gradients)


@each_objective
def test_it_is_lowest_when_the_pairs_match(objective):
    z = torch.nn.functional.one_hot(torch.arange(8)).double() + 0.1 * rows(8, 8, 21)
    assert objective(z, z + 0.05 * rows(8, 8, 22)) < objective(z, z.roll(1, 0)) - 0.5


@each_objective
def test_calling_twice_gives_the_same_and_leaves_the_inputs(objective):
    z1, z2 = rows(6, 5, 23), rows(6, 5, 24)
    before = z1.clone(), z2.clone()
    assert objective(z1, z2).item() == objective(z1, z2).item()
    assert torch.equal(z1, before[0]) and torch.equal(z2, before[1])


@each_objective
def test_gradcheck(objective):
    z1, z2 = rows(4, 3, 25).requires_grad_(), rows(4, 3, 26).requires_grad_()
    if objective is OBJECTIVES["queue_infonce"]:  # its keys carry no gradient, by design
        assert torch.autograd.gradcheck(lambda a: objective(a, z2.detach()), (z1,))
    else:
        assert torch.autograd.gradcheck(objective, (z1, z2))


# --- numbers at the edge ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("tau", [0.01, 0.07, 0.5])
@each_objective
def test_half_precision_inputs_give_the_float32_loss(objective, tau, dtype):
    z1, z2 = rows(16, 8, 27).to(dtype), rows(16, 8, 28).to(dtype)
    half = values_and_gradients(lambda a, b: objective(a, b, tau), z1, z2)
    full = values_and_gradients(lambda a, b: objective(a, b, tau), z1.float(), z2.float())
    assert half[0].item() == pytest.approx(full[0].item(), rel=0.02)
    for got, wanted in zip(half[1:], full[1:], strict=True):
        assert got.dtype == dtype
        torch.testing.assert_close(got.float(), wanted, rtol=0.05, atol=0.02 * wanted.abs().max().item())


@each_objective
@pytest.mark.parametrize("tau", [0.01, 0.5])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_zero_rows_stay_finite(objective, tau, dtype):
    z1, z2 = rows(6, 4, 29, torch.float32).to(dtype), rows(6, 4, 30, torch.float32).to(dtype)
    z1[0], z2[0], z2[3] = 0, 0, 0
    for tensor in values_and_gradients(lambda a, b: objective(a, b, tau), z1, z2):
        assert tensor.isfinite().all()


@each_objective
def test_a_large_batch_at_a_small_tau_is_finite(objective):
    z1, z2 = rows(1500, 8, 31, torch.float32), rows(1500, 8, 32, torch.float32)
    for tensor in values_and_gradients(lambda a, b: objective(a, b, 0.01), z1, z2):
        assert tensor.isfinite().all()


@pytest.mark.parametrize("tau", [0.001, 0.01])
def test_a_perfect_batch_at_a_tiny_tau_costs_nothing(tau):
    z = torch.eye(16)
    assert infonce(z, z, tau).item() == pytest.approx(0, abs=1e-6)
    assert ntxent(z, z, tau).item() == pytest.approx(0, abs=1e-6)
    # and the worst one costs what separates the two similarities
    assert infonce(z, z.roll(1, 0), tau).item() == pytest.approx(1 / tau, rel=1e-4)


@each_objective
@pytest.mark.parametrize("tau", [0, 0.0, -1.0, math.nan])
def test_a_tau_that_is_not_positive_is_refused(objective, tau):
    with pytest.raises(ValueError, match=r"tau must be > 0, got (0|0\.0|-1\.0|nan)"):
        objective(rows(3, 2), rows(3, 2), tau)


@pytest.mark.parametrize("objective", [infonce, ntxent, graphcl_code])
def test_views_of_different_shapes_are_refused(objective):
    with pytest.raises(ValueError, match=r"\(3, 2\).*\(4, 2\)"):
        objective(rows(3, 2), rows(4, 2))
    with pytest.raises(ValueError, match=r"\(3, 2\).*\(3, 5\)"):
        objective(rows(3, 2), rows(3, 5))


# --- keys from elsewhere, masks, queue --------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", [infonce, ntxent])
@pytest.mark.parametrize("tau", [0.05, 0.5])
def test_parts_against_all_keys_make_the_whole(objective, tau):
    """What each process computes with the keys of all processes averages to the loss and gradient of one process."""
    z1, z2 = rows(8, 5, 33), rows(8, 5, 34)

    def in_parts(a: Tensor, b: Tensor) -> Tensor:
        parts = [torch.arange(0, 3), torch.arange(3, 8)]
        losses = [objective(a[p], b[p], tau, keys1=a, keys2=b, target=p) * len(p) for p in parts]
        return sum(losses) / len(a)

    assert_same(values_and_gradients(in_parts, z1, z2), values_and_gradients(lambda a, b: objective(a, b, tau), z1, z2))


def test_one_direction_needs_the_keys_of_the_second_view_only():
    z1, z2 = rows(8, 5, 35), rows(8, 5, 36)
    part = torch.arange(2, 6)
    got = infonce(z1[part], z2[part], 0.3, symmetric=False, keys2=z2, target=part)
    f = (torch.nn.functional.normalize(z1, dim=1) @ torch.nn.functional.normalize(z2, dim=1).T / 0.3).exp()
    wanted = torch.stack([-(f[i, i] / f[i].sum()).log() for i in part.tolist()]).mean()
    assert got.item() == pytest.approx(wanted.item(), rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 6), extra=st.integers(0, 3), symmetric=st.booleans(), seed=st.integers(0, 99))
def test_the_mask_takes_candidates_from_the_negatives_and_never_the_positive(n, extra, symmetric, seed):
    z1, z2, keys1, keys2 = (rows(m, 4, seed + i) for i, m in enumerate((n, n, n + extra, n + extra)))
    generator = torch.Generator().manual_seed(seed)
    target = torch.randperm(n + extra, generator=generator)[:n]
    mask = torch.rand(n, n + extra, generator=generator) < 0.5

    def by_hand(a: Tensor, b: Tensor) -> Tensor:
        losses = []
        for anchors, keys in [(a, keys2), (b, keys1)] if symmetric else [(a, keys2)]:
            for i, positive in enumerate(target.tolist()):
                f = [(cosine(anchors[i], key) / 0.3).exp() for key in keys]
                kept = [j for j in range(len(keys)) if mask[i, j] or j == positive]
                losses.append(-(f[positive] / sum(f[j] for j in kept)).log())
        return sum(losses) / len(losses)

    def ours(a: Tensor, b: Tensor) -> Tensor:
        return infonce(a, b, 0.3, symmetric=symmetric, keys1=keys1, keys2=keys2, target=target, mask=mask)

    assert_same(values_and_gradients(ours, z1, z2), values_and_gradients(by_hand, z1, z2))


@pytest.mark.parametrize("n", [700, 1301])
def test_many_rows_give_what_whole_matrices_give(n):
    """Larger than any block that a streamed form may work in; against logsumexp over whole float64 matrices."""
    z1, z2 = rows(n, 6, 50), rows(n, 6, 51)
    a, b = torch.nn.functional.normalize(z1, dim=1), torch.nn.functional.normalize(z2, dim=1)
    between, within1, within2 = a @ b.T / 0.05, a @ a.T / 0.05, b @ b.T / 0.05
    for within in (within1, within2):
        within.fill_diagonal_(-math.inf)
    positive = between.diagonal()
    one_way = (between.logsumexp(1) - positive).mean()
    both = (one_way + (between.logsumexp(0) - positive).mean()) / 2
    views = [torch.cat([between, within1], 1), torch.cat([between.T, within2], 1)]
    four = sum((view.logsumexp(1) - positive).mean() for view in views) / 2
    assert infonce(z1, z2, 0.05, symmetric=False).item() == pytest.approx(one_way.item(), rel=1e-9)
    assert infonce(z1, z2, 0.05).item() == pytest.approx(both.item(), rel=1e-9)
    assert ntxent(z1, z2, 0.05).item() == pytest.approx(four.item(), rel=1e-9)
    queued = torch.cat([positive[:9, None], between[:9]], 1).logsumexp(1) - positive[:9]
    assert queue_infonce(z1[:9], z2[:9], z2, 0.05).item() == pytest.approx(queued.mean().item(), rel=1e-9)


def test_the_queues_keys_carry_no_gradient():
    q, k, queue = (rows(4, 3, s).requires_grad_() for s in (37, 38, 39))
    queue_infonce(q, k, queue).backward()
    assert q.grad is not None and q.grad.abs().sum() > 0
    assert k.grad is None and queue.grad is None


@pytest.mark.parametrize("empty", ["no slots", "unfilled", "own"])
def test_an_empty_queue_costs_nothing(empty):
    q, k = rows(4, 3, 40), rows(4, 3, 41)
    slots = 0 if empty == "no slots" else 6
    ids = torch.zeros(4, dtype=torch.long)
    queue_ids = torch.full((slots,), 0 if empty == "own" else -1)
    value, gradient = values_and_gradients(
        lambda a: queue_infonce(a, k, rows(slots, 3, 42), 0.07, ids=ids, queue_ids=queue_ids), q
    )
    assert value.item() == pytest.approx(0, abs=1e-12)
    assert gradient.abs().max() < 1e-12


def test_what_lies_in_an_empty_slot_is_never_read():
    q, k, queue = rows(4, 3, 43), rows(4, 3, 44), rows(6, 3, 45)
    ids, queue_ids = torch.arange(4), torch.tensor([10, -1, 11, -1, 12, 13])
    wanted = values_and_gradients(lambda a: queue_infonce(a, k, queue[queue_ids >= 0]), q)
    queue[queue_ids < 0] = k[:2] * 1e3
    assert_same(values_and_gradients(lambda a: queue_infonce(a, k, queue, ids=ids, queue_ids=queue_ids), q), wanted)


# --- a regression and the modules -------------------------------------------------------------------------------------


def test_a_row_is_not_its_own_positive():
    """A widely copied snippet labels each row of the 2N x 2N similarities as its own positive; such a loss cannot see
    whether the two views belong together. Ours does."""
    z1 = rows(16, 8, 46)
    matched, mismatched = z1 + 0.1 * rows(16, 8, 47), (z1 + 0.1 * rows(16, 8, 47)).roll(1, 0)
    for tau in (0.1, 0.5):
        wrong = [rows_as_their_own_positives(z1, z2, tau).item() for z2 in (matched, mismatched)]
        ours = [ntxent(z1, z2, tau).item() for z2 in (matched, mismatched)]
        assert wrong[0] == pytest.approx(wrong[1], rel=1e-9)
        assert ours[0] < ours[1] - 1
        assert abs(ours[0] - wrong[0]) > 0.05


def test_the_modules_only_remember_their_settings():
    z1, z2 = rows(5, 4, 48), rows(5, 4, 49)
    assert InfoNCE(0.2)(z1, z2).item() == infonce(z1, z2, 0.2).item()
    assert InfoNCE(0.2, symmetric=False)(z1, z2).item() == infonce(z1, z2, 0.2, symmetric=False).item()
    assert NTXent(0.2)(z1, z2).item() == ntxent(z1, z2, 0.2).item()
    assert not InfoNCE(0.2).state_dict() and not NTXent(0.2).state_dict()


@each_objective
@pytest.mark.parametrize("tau", [0.01, 0.5])
def test_autocast_gives_the_float32_loss(objective, tau):
    z1, z2 = rows(16, 8, 60, torch.float32), rows(16, 8, 61, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = objective(z1, z2, tau)
    assert inside.item() == pytest.approx(objective(z1, z2, tau).item(), rel=1e-3)


@pytest.mark.parametrize("form", ["dense", "fused", "streamed"])
@pytest.mark.parametrize("normalized", [False, True])
def test_nan_in_an_empty_slot_is_never_read(form, normalized):
    q, k, queue = rows(5, 4, 0), rows(5, 4, 1), F.normalize(rows(6, 4, 2), dim=1)
    ids = torch.tensor([3, -1, 4, -1, -1, 5])
    holes = queue.masked_fill((ids == -1)[:, None], 0.0 if normalized else math.nan)
    leaf = q.clone().requires_grad_()
    loss = queue_infonce(leaf, k, holes, 0.1, queue_ids=ids, normalized=normalized, form=form)
    leaf_kept = q.clone().requires_grad_()
    kept = queue_infonce(leaf_kept, k, queue[ids != -1], 0.1, form="dense")
    torch.testing.assert_close(loss, kept)
    torch.testing.assert_close(torch.autograd.grad(loss, leaf), torch.autograd.grad(kept, leaf_kept))


def test_a_queue_of_another_precision_is_read():
    q, k, queue = rows(5, 4, 0), rows(5, 4, 1), rows(6, 4, 2)
    for form in ("dense", "streamed"):
        loss = queue_infonce(q, k, queue.float(), 0.1, form=form)
        torch.testing.assert_close(loss, queue_infonce(q, k, queue, 0.1, form="dense"), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("objective", [infonce, ntxent, graphcl_code])
def test_a_temperature_that_asks_for_a_gradient_is_refused(objective):
    tau = torch.tensor(0.3, requires_grad=True)
    with pytest.raises(ValueError, match=r"tau is a number here and gets no gradient; give float\(tau\)"):
        objective(rows(4, 3, 0), rows(4, 3, 1), tau)


@pytest.mark.parametrize("form", ["dense", "streamed"])
@pytest.mark.parametrize("objective", [infonce, ntxent])
def test_targets_and_types_that_do_not_fit_are_refused(objective, form):
    z1, z2, keys = rows(3, 4, 0), rows(3, 4, 1), rows(5, 4, 2)
    given = {"keys1": keys, "keys2": keys, "form": form}
    with pytest.raises(ValueError, match="target names row 5, but there are 5, numbered from 0"):
        objective(z1, z2, target=torch.tensor([0, 1, 5]), **given)
    with pytest.raises(ValueError, match="target names row -100"):
        objective(z1, z2, target=torch.tensor([0, 1, -100]), **given)
    with pytest.raises(ValueError, match=r"target must be row numbers, integers, got torch\.float32"):
        objective(z1, z2, target=torch.tensor([0.0, 1.0, 2.0]), **given)
    narrow = objective(z1, z2, target=torch.tensor([0, 4, 2], dtype=torch.int32), **given)
    assert narrow == objective(z1, z2, target=torch.tensor([0, 4, 2]), **given)
    with pytest.raises(ValueError, match=r"z1 is torch.float64 and z2 is torch.float32; bring both to one"):
        objective(z1, z2.float(), form=form)
    with pytest.raises(ValueError, match=r"keys. is torch.float32 and the views is torch.float64"):
        objective(z1, z2, keys1=keys.float(), keys2=keys.float(), form=form)
    with pytest.raises(ValueError, match=r"weights must be finite and >= 0, they go from -0.5 to"):
        objective(z1, z2, weights=torch.tensor([[1.0, -0.5, 1.0]] * 3).double(), form=form)
    with pytest.raises(ValueError, match=r"weights must be finite and >= 0, they go from 1.0 to inf"):
        objective(z1, z2, weights=torch.tensor([[1.0, math.inf, 1.0]] * 3).double(), form=form)
