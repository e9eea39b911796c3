"""Streamed and fused forms against the dense float64 form: values and gradients, whatever the size of the tiles."""

import importlib
import math

import pytest
import torch
import torch.nn.functional as F
from device_guards import device_clean, to_meta
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_checks import assert_same, rows, values_and_gradients
from torch import Tensor

from graphcl.objectives import infonce, ntxent, queue_infonce, streamed
from graphcl.objectives.streamed import mean_lse, mean_lse_both, mean_lse_self, queue_loss, rowwise

TAUS = [0.005, 0.01, 0.07, 0.5, 5.0]
FAST = ["fused", "streamed"]
each_fast_form = pytest.mark.parametrize("form", FAST)


def units(n: int, dim: int, seed: int = 0) -> Tensor:
    return F.normalize(rows(n, dim, seed), dim=1)


# --- the sums, in tiles of any size -----------------------------------------------------------------------------------

sizes = {"n": st.integers(1, 13), "m": st.integers(1, 13), "tau": st.sampled_from(TAUS), "seed": st.integers(0, 99)}
tiles = st.tuples(st.integers(1, 15), st.integers(1, 15))


@settings(max_examples=25, deadline=None)
@given(**sizes, block=tiles, paired=st.booleans())
def test_one_direction_in_tiles(n, m, tau, seed, block, paired):
    def whole(a: Tensor, b: Tensor) -> Tensor:
        logits = a @ b.T / tau
        return logits.logsumexp(1).mean() - (logits.diagonal().mean() if paired else 0)

    inputs = units(n, 3, seed), units(n if paired else m, 3, seed + 1)
    tiled = values_and_gradients(lambda a, b: mean_lse(a, b, tau, paired=paired, block=block), *inputs)
    assert_same(tiled, values_and_gradients(whole, *inputs))


@settings(max_examples=25, deadline=None)
@given(**sizes, block=tiles, keep=st.booleans(), paired=st.booleans())
def test_both_directions_in_tiles(n, m, tau, seed, block, keep, paired):
    def whole(a: Tensor, b: Tensor) -> Tensor:
        logits = a @ b.T / tau
        both = (logits.logsumexp(1).mean() + logits.logsumexp(0).mean()) / 2
        return both - (logits.diagonal().mean() if paired else 0)

    def tiled(a: Tensor, b: Tensor) -> Tensor:
        return mean_lse_both(a, b, tau, paired=paired, keep=keep, block=block)

    inputs = units(n, 3, seed), units(n if paired else m, 3, seed + 1)
    assert_same(values_and_gradients(tiled, *inputs), values_and_gradients(whole, *inputs))


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(2, 19),
    tau=st.sampled_from(TAUS),
    seed=st.integers(0, 99),
    block=tiles,
    keep=st.booleans(),
    paired=st.booleans(),
)
def test_a_triangle_of_tiles_is_the_symmetric_matrix(n, tau, seed, block, keep, paired):
    n = 2 * n if paired else n

    def whole(z: Tensor) -> Tensor:
        logits = z @ z.T / tau
        pairs = logits.diagonal(n // 2).mean() if paired else 0
        return logits.masked_fill(torch.eye(n, dtype=torch.bool), -math.inf).logsumexp(1).mean() - pairs

    def tiled(z: Tensor) -> Tensor:
        return mean_lse_self(z, tau, paired=paired, keep=keep, block=block)

    z = units(n, 3, seed)
    assert_same(values_and_gradients(tiled, z), values_and_gradients(whole, z))


@settings(max_examples=25, deadline=None)
@given(**sizes, block=st.integers(1, 15))
def test_any_loss_of_rows_in_blocks(n, m, tau, seed, block):
    """Here the squared distance of each row's softmax from a target of its own."""
    wanted = torch.rand(n, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    def whole(a: Tensor, b: Tensor) -> Tensor:
        return ((a @ b.T / tau).softmax(1) - wanted).square().sum(1).mean()

    def row_loss(logits: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        p = logits.softmax(1)
        off = p - wanted[part]
        return off.square().sum(1), 2 * p * (off - (p * off).sum(1, keepdim=True))

    inputs = units(n, 3, seed), units(m, 3, seed + 1)
    blocks = values_and_gradients(lambda a, b: rowwise(a, b, tau, row_loss, block=block), *inputs)
    assert_same(blocks, values_and_gradients(whole, *inputs))


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 6),
    slots=st.lists(st.integers(-1, 8), max_size=12),
    tau=st.sampled_from(TAUS),
    seed=st.integers(0, 99),
    given_ids=st.sampled_from(["none", "slots", "both"]),
    normalized=st.booleans(),
    block=st.integers(1, 15),
)
def test_the_queue_in_blocks(n, slots, tau, seed, given_ids, normalized, block):
    q, k, queue = units(n, 4, seed), units(n, 4, seed + 1), rows(len(slots), 4, seed + 2)
    queue = F.normalize(queue, dim=1) if normalized else queue
    ids = {}
    if given_ids != "none":
        ids["queue_ids"] = torch.tensor(slots, dtype=torch.long)
        if normalized:  # empty slots are 0, as in a FeatureQueue
            queue = queue * (ids["queue_ids"] != -1)[:, None]
    if given_ids == "both":
        ids["ids"] = torch.randint(0, 9, (n,), generator=torch.Generator().manual_seed(seed))
    tiled = values_and_gradients(lambda q: queue_loss(q, k, queue, tau, **ids, normalized=normalized, block=block), q)
    dense = values_and_gradients(lambda q: queue_infonce(q, k, queue, tau, **ids, form="dense"), q)
    # The dense form's gradient leaves the row's length out; along it ours may differ.
    across = [g - (g * q).sum(1, keepdim=True) * q for g in (tiled[1], dense[1])]
    assert_same([tiled[0], across[0]], [dense[0], across[1]])


# --- the objectives in all forms --------------------------------------------------------------------------------------


@each_fast_form
@pytest.mark.parametrize("tau", TAUS)
@pytest.mark.parametrize("n", [1, 2, 7, 300])
@pytest.mark.parametrize("objective", ["infonce", "one way", "ntxent", "queue"])
def test_every_form_is_the_dense_form(objective, n, tau, form):
    other = rows(n + 600, 5, 3)

    def loss(form: str):
        return {
            "infonce": lambda a, b: infonce(a, b, tau, form=form),
            "one way": lambda a, b: infonce(a, b, tau, symmetric=False, form=form),
            "ntxent": lambda a, b: ntxent(a, b, tau, form=form),
            "queue": lambda a, b: queue_infonce(a, b, other, tau, form=form),
        }[objective]

    z1, z2 = rows(n, 5, 1), rows(n, 5, 2)
    assert_same(values_and_gradients(loss(form), z1, z2), values_and_gradients(loss("dense"), z1, z2))


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 6),
    extra=st.none() | st.integers(0, 3),
    objective=st.sampled_from(["infonce", "one way", "ntxent"]),
    masked=st.booleans(),
    weighted=st.sampled_from(["no", "tensor", "function"]),
    tau=st.sampled_from(TAUS),
    form=st.sampled_from(FAST),
    seed=st.integers(0, 99),
)
def test_keys_masks_and_weights_in_every_form(n, extra, objective, masked, weighted, tau, form, seed):
    m = n + (extra or 0)
    generator = torch.Generator().manual_seed(seed)
    options = {}
    if masked:
        options["mask"] = torch.rand(n, m, generator=generator) < 0.5
    if weighted == "tensor":  # with zeros among them
        options["weights"] = (torch.rand(n, m, generator=generator, dtype=torch.float64) * 3 - 1).clamp(min=0)
    if weighted == "function":
        options["weights"] = lambda logits, rows: (tau * logits).exp() + rows[:, None] % 2
    if extra is not None:
        options["target"] = torch.randperm(m, generator=generator)[:n]
    if objective == "one way":
        options["symmetric"] = False

    def loss(form: str):
        def of(a: Tensor, b: Tensor, keys1: Tensor, keys2: Tensor) -> Tensor:
            keys = {} if extra is None else {"keys1": keys1, "keys2": keys2}
            return (ntxent if objective == "ntxent" else infonce)(a, b, tau, **keys, **options, form=form)

        return of

    inputs = [rows(size, 4, seed + i) for i, size in enumerate((n, n, m, m))]
    assert_same(values_and_gradients(loss(form), *inputs), values_and_gradients(loss("dense"), *inputs))


@pytest.mark.parametrize("objective", [infonce, ntxent])
@pytest.mark.parametrize("form", ["dense", *FAST])
def test_weights_are_a_number_of_copies_and_a_mask_is_a_weight_of_zero(objective, form):
    z1, z2 = rows(6, 4, 5), rows(6, 4, 6)
    keep = torch.ones(6, 6, dtype=torch.bool)
    keep[0, 3] = keep[4, 1] = keep[2, 2] = False
    got = values_and_gradients(lambda a, b: objective(a, b, 0.3, weights=keep.double(), form=form), z1, z2)
    assert_same(got, values_and_gradients(lambda a, b: objective(a, b, 0.3, mask=keep, form=form), z1, z2))
    # Item 5 counts twice: as if it stood twice among the keys.
    twice = torch.ones(5, 6).double()
    twice[:, 5] = 2
    keys = [torch.cat([z, z[5:]]) for z in (z1, z2)]
    part = torch.arange(5)
    a = objective(z1[:5], z2[:5], 0.3, keys1=z1, keys2=z2, target=part, weights=twice, form=form)
    b = objective(z1[:5], z2[:5], 0.3, keys1=keys[0], keys2=keys[1], target=part, form=form)
    assert a.item() == pytest.approx(b.item(), rel=1e-9)


@pytest.mark.parametrize("objective", [infonce, ntxent])
def test_no_gradient_goes_through_weights(objective):
    z1, z2 = rows(5, 4, 7).requires_grad_(), rows(5, 4, 8)
    weights = torch.rand(5, 5, dtype=torch.float64, requires_grad=True)
    for form in ("dense", "streamed"):
        z1.grad = None
        objective(z1, z2, weights=weights, form=form).backward()
        assert weights.grad is None and z1.grad.abs().sum() > 0


@pytest.mark.parametrize("options", [{}, {"symmetric": False}])
@pytest.mark.parametrize("n", [40, 600])
def test_auto_goes_by_size_and_changes_nothing(options, n):
    z1, z2 = rows(n, 4, 9), rows(n, 4, 10)
    for loss in (lambda form: infonce(z1, z2, **options, form=form), lambda form: ntxent(z1, z2, form=form)):
        assert loss("auto").item() == pytest.approx(loss("dense").item(), rel=1e-12)


def test_auto_is_dense_for_few_rows_and_holds_no_matrix_for_many(monkeypatch):
    called = []
    for name in ("mean_lse", "mean_lse_both", "mean_lse_self", "rowwise", "queue_loss"):
        real = getattr(streamed, name)
        monkeypatch.setattr(
            streamed, name, lambda *a, real=real, name=name, **k: called.append((name, k.get("keep"))) or real(*a, **k)
        )
    few, some = rows(64, 2, 9, torch.float32), rows(700, 2, 10, torch.float32)
    for z in (few, some):
        infonce(z, z), infonce(z, z, symmetric=False), ntxent(z, z), queue_infonce(z, z, z)
    assert called == [("mean_lse_both", True), ("mean_lse", None), ("mean_lse_self", True), ("queue_loss", None)]
    called.clear()
    monkeypatch.setattr(importlib.import_module("graphcl.objectives.infonce"), "FUSED", 2**17)
    infonce(some, some), ntxent(some, some)
    assert called == [("mean_lse_both", False), ("mean_lse_self", False)]


def test_a_form_that_is_not_there_is_refused():
    z = rows(3, 2)
    for loss in (lambda: infonce(z, z, form="tiled"), lambda: queue_infonce(z, z, z, form="tiled")):
        with pytest.raises(ValueError, match=r"form must be one of auto, dense, fused, streamed; got 'tiled'"):
            loss()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": torch.ones(3, 4, dtype=torch.bool)}, r"mask must be \[3, 3\], got \[3, 4\]"),
        ({"mask": torch.ones(3, 3)}, r"mask must be bool.*torch\.float32"),
        ({"weights": torch.ones(4, 3)}, r"weights must be \[3, 3\], got \[4, 3\]"),
        ({"weights": torch.ones(3, 3, dtype=torch.long)}, r"weights must be floating-point numbers >= 0.*int64"),
        ({"weights": lambda logits, rows: logits[:, :1]}, r"what weights\(\) returned must be"),
    ],
)
@pytest.mark.parametrize("objective", [infonce, ntxent])
@pytest.mark.parametrize("form", ["dense", "streamed"])
def test_masks_and_weights_that_do_not_fit_are_refused(objective, options, message, form):
    with pytest.raises(ValueError, match=message):
        objective(rows(3, 2), rows(3, 2), form=form, **options)


# --- numbers at the edge ----------------------------------------------------------------------------------------------


def some_pairs(z: Tensor) -> Tensor:
    number = torch.arange(len(z), device=z.device)
    return (number[:, None] + number) % 3 != 1


OBJECTIVES = {
    "infonce": infonce,
    "one way": lambda a, b, tau, **k: infonce(a, b, tau, symmetric=False, **k),
    "ntxent": ntxent,
    "masked": lambda a, b, tau, **k: ntxent(a, b, tau, mask=some_pairs(a), **k),
    "queue": lambda a, b, tau, **k: queue_infonce(a, b, torch.cat([b.flip(0), a.detach()]), tau, **k),
}
each_objective = pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES.keys())


@each_objective
@each_fast_form
@pytest.mark.parametrize("tau", [0.005, 0.02])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_gives_nearly_the_float64_loss(objective, form, tau, dtype):
    z1, z2 = rows(150, 8, 11).to(dtype), rows(150, 8, 12).to(dtype)
    low = values_and_gradients(lambda a, b: objective(a, b, tau, form=form), z1, z2)
    full = values_and_gradients(lambda a, b: objective(a, b, tau, form="dense"), z1.double(), z2.double())
    assert low[0].item() == pytest.approx(full[0].item(), rel=1e-4)
    for got, wanted in zip(low[1:], full[1:], strict=True):
        assert got.dtype == dtype
        # the gradient itself is rounded to the dtype; fp16 has subnormals below 6e-5
        tolerance = {torch.float16: 1e-2, torch.bfloat16: 1e-2, torch.float32: 1e-4}[dtype]
        torch.testing.assert_close(got.double(), wanted, rtol=tolerance, atol=tolerance * wanted.abs().max().item())


@each_objective
@each_fast_form
def test_autocast_changes_nothing(objective, form):
    z1, z2 = rows(40, 8, 13, torch.float32), rows(40, 8, 14, torch.float32)
    outside = values_and_gradients(lambda a, b: objective(a, b, 0.05, form=form), z1, z2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = values_and_gradients(lambda a, b: objective(a, b, 0.05, form=form), z1, z2)
    assert_same(inside, outside, rtol=1e-6, atol=1e-8)


@each_objective
@each_fast_form
@pytest.mark.parametrize("tau", [0.005, 0.02, 0.5])
def test_zero_and_equal_rows_stay_finite(objective, form, tau):
    z1, z2 = rows(9, 4, 15, torch.float32), rows(9, 4, 16, torch.float32)
    z1[0], z2[0], z2[3] = 0, 0, 0
    for inputs in ((z1, z2), (torch.ones(9, 4), torch.ones(9, 4)), (torch.zeros(9, 4), torch.zeros(9, 4))):
        for tensor in values_and_gradients(lambda a, b: objective(a, b, tau, form=form), *inputs):
            assert tensor.isfinite().all()


@pytest.mark.parametrize("objective", [infonce, ntxent])
@each_fast_form
@pytest.mark.parametrize("tau", [0.01, 0.02, 0.5])
def test_one_pair_costs_nothing(objective, form, tau):
    for tensor in values_and_gradients(lambda a, b: objective(a, b, tau, form=form), rows(1, 4, 17), rows(1, 4, 18)):
        assert tensor.abs().max() < 1e-12


@pytest.mark.parametrize("empty", ["no slots", "unfilled", "own"])
@pytest.mark.parametrize("tau", [0.01, 0.07])
def test_an_empty_queue_costs_nothing_to_the_last_bit(empty, tau):
    q, k = rows(4, 3, 19), rows(4, 3, 20)
    slots = 0 if empty == "no slots" else 6
    ids, queue_ids = torch.zeros(4, dtype=torch.long), torch.full((slots,), 0 if empty == "own" else -1)
    queue = rows(slots, 3, 21) * 1e6
    for tensor in values_and_gradients(
        lambda a: queue_infonce(a, k, queue, tau, ids=ids, queue_ids=queue_ids, form="streamed"), q
    ):
        assert (tensor == 0).all()


# --- what autograd, the compiler and the device ask for ---------------------------------------------------------------


@each_objective
@each_fast_form
def test_only_wanted_gradients_are_given_and_scaled(objective, form):
    z1, z2 = rows(8, 3, 22), rows(8, 3, 23)
    wanted = values_and_gradients(lambda a, b: objective(a, b, 0.3, form=form), z1, z2)
    leaf = z1.clone().requires_grad_()
    (3 * objective(leaf, z2, 0.3, form=form)).backward()
    assert_same([leaf.grad], [3 * wanted[1]])
    assert not objective(z1, z2, 0.3, form=form).requires_grad
    with torch.no_grad():
        assert objective(leaf, z2, 0.3, form=form).item() == pytest.approx(wanted[0].item(), rel=1e-12)


@each_objective
@each_fast_form
def test_a_second_derivative_is_refused(objective, form):
    z = rows(8, 3, 24).requires_grad_()
    with pytest.raises(RuntimeError, match=r'no second derivative; take form="dense"'):
        torch.autograd.grad(objective(z, rows(8, 3, 25), 0.3, form=form), z, create_graph=True)
    (first,) = torch.autograd.grad(objective(z, rows(8, 3, 25), 0.3, form="dense"), z, create_graph=True)
    first.square().sum().backward()
    assert z.grad.isfinite().all()


@each_fast_form
def test_the_queue_may_be_written_before_backward(form):
    q, k, queue = rows(8, 3, 26).requires_grad_(), rows(8, 3, 27), rows(20, 3, 28)
    wanted = torch.autograd.grad(queue_infonce(q, k, queue, form=form), q)
    loss = queue_infonce(q, k, queue, form=form)
    queue.zero_()
    assert_same(list(torch.autograd.grad(loss, q)), list(wanted))


@pytest.mark.parametrize(
    ("objective", "form", "tau"),
    [
        *(("infonce", "streamed", 0.3), ("one way", "streamed", 0.3), ("ntxent", "fused", 0.3)),
        *(("masked", "streamed", 0.3), ("queue", "streamed", 0.01)),
    ],
)
def test_it_compiles_without_a_break(objective, form, tau):
    torch.compiler.reset()

    def loss(a: Tensor, b: Tensor) -> Tensor:
        return OBJECTIVES[objective](a, b, tau, form=form)

    z1, z2 = rows(12, 3, 29), rows(12, 3, 30)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    assert_same(values_and_gradients(compiled, z1, z2), values_and_gradients(loss, z1, z2))


@each_objective
@each_fast_form
@pytest.mark.parametrize("tau", [0.01, 0.3])
def test_nothing_leaves_the_device(objective, form, tau):
    inputs = rows(30, 4, 31), rows(30, 4, 32)
    with device_clean() as mode:
        z1, z2 = (to_meta(z, mode).requires_grad_() for z in inputs)
        loss = objective(z1, z2, tau, form=form)
        loss.backward()
        assert loss.device.type == "meta" and z1.grad.device.type == "meta"


@pytest.mark.parametrize("tau", [0.01, 0.3])
def test_ids_stay_on_the_device(tau):
    inputs = rows(5, 4), rows(5, 4), rows(40, 4), torch.arange(5), torch.arange(40)
    with device_clean() as mode:
        q, k, queue, ids, queue_ids = (to_meta(x, mode) for x in inputs)
        q.requires_grad_()
        queue_infonce(q, k, queue, tau, ids=ids, queue_ids=queue_ids, form="streamed").backward()
        assert q.grad.device.type == "meta"
