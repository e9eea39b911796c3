import pytest
import torch
from device_guards import device_clean, to_meta
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_checks import assert_same, rows, values_and_gradients
from references import hcl_by_hand
from torch import Tensor

from graphcl.objectives import debiased_infonce, hard_infonce, ntxent, streamed


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 6),
    tau=st.sampled_from([0.07, 0.5, 5.0]),
    beta=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    tau_plus=st.sampled_from([0.0, 0.01, 0.1, 0.6]),
    seed=st.integers(0, 99),
)
def test_it_is_the_sum_of_the_authors_code(n, tau, beta, tau_plus, seed):
    z1, z2 = rows(n, 4, seed), rows(n, 4, seed + 1)
    z2 = z2 + seed % 3 * z1  # close pairs, where the sum falls below its clamp
    assert_same(
        values_and_gradients(lambda a, b: hard_infonce(a, b, tau, beta=beta, tau_plus=tau_plus), z1, z2),
        values_and_gradients(lambda a, b: hcl_by_hand(a, b, tau, beta, tau_plus), z1, z2),
    )


def test_at_the_clamp_the_negatives_do_not_pull():
    z1, z2 = rows(6, 4, 3), rows(6, 4, 3) + 0.01
    for share, clamped in ((0.0, False), (0.6, True)):
        _, gradient, _ = values_and_gradients(lambda a, b, s=share: debiased_infonce(a, b, 0.07, tau_plus=s), z1, z2)
        assert (gradient.abs().max() < 1e-6) == clamped


def test_without_share_and_hardness_it_is_ntxent():
    z1, z2 = rows(9, 4, 4), rows(9, 4, 5)
    assert_same(
        values_and_gradients(lambda a, b: debiased_infonce(a, b, 0.2, tau_plus=0.0), z1, z2),
        values_and_gradients(lambda a, b: ntxent(a, b, 0.2), z1, z2),
    )


def test_debiased_is_hard_without_hardness_and_hard_negatives_cost_more():
    z1, z2 = rows(9, 4, 6), rows(9, 4, 7)
    assert debiased_infonce(z1, z2, 0.3, tau_plus=0.05) == hard_infonce(z1, z2, 0.3, beta=0.0, tau_plus=0.05)
    losses = [hard_infonce(z1, z2, 0.3, beta=beta, tau_plus=0.05).item() for beta in (0.0, 0.5, 1.0, 2.0)]
    assert losses == sorted(losses) and losses[0] < losses[-1] - 0.1


def test_parts_against_all_keys_make_the_whole():
    z1, z2 = rows(8, 5, 8), rows(8, 5, 9)

    def in_parts(a: Tensor, b: Tensor) -> Tensor:
        parts = [torch.arange(0, 3), torch.arange(3, 8)]
        return sum(hard_infonce(a[p], b[p], keys1=a, keys2=b, target=p) * len(p) for p in parts) / len(a)

    assert_same(values_and_gradients(in_parts, z1, z2), values_and_gradients(hard_infonce, z1, z2))


def test_the_size_of_the_blocks_does_not_matter(monkeypatch):
    z1, z2 = rows(11, 4, 10), rows(11, 4, 11)
    whole = values_and_gradients(hard_infonce, z1, z2)
    real = streamed.rowwise
    for block in (1, 5, 21):
        monkeypatch.setattr(streamed, "rowwise", lambda *a, block=block: real(*a, block=block))
        assert_same(values_and_gradients(hard_infonce, z1, z2), whole)


@pytest.mark.parametrize("tau", [0.005, 0.01, 0.5])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_it_is_finite_and_right_in_low_precision(tau, dtype):
    z1, z2 = rows(40, 8, 12).to(dtype), rows(40, 8, 13).to(dtype)
    z1[0], z2[0], z2[3] = 0, 0, 0
    low = values_and_gradients(lambda a, b: hard_infonce(a, b, tau, tau_plus=0.01), z1, z2)
    full = values_and_gradients(lambda a, b: hard_infonce(a, b, tau, tau_plus=0.01), z1.double(), z2.double())
    assert low[0].item() == pytest.approx(full[0].item(), rel=1e-3)
    for got, wanted in zip(low[1:], full[1:], strict=True):
        torch.testing.assert_close(got.double(), wanted, rtol=0.02, atol=0.02 * wanted.abs().max().item())
    for same in (torch.ones(9, 4), torch.zeros(9, 4)):
        for tensor in values_and_gradients(lambda a, b: hard_infonce(a, b, tau), same, same):
            assert tensor.isfinite().all()


def test_it_compiles_and_stays_on_the_device():
    torch.compiler.reset()
    z1, z2 = rows(6, 3, 14), rows(6, 3, 15)
    compiled = torch.compile(hard_infonce, fullgraph=True, backend="aot_eager")
    assert_same(values_and_gradients(compiled, z1, z2), values_and_gradients(hard_infonce, z1, z2))
    with device_clean() as mode:
        a, b = (to_meta(z, mode).requires_grad_() for z in (z1, z2))
        hard_infonce(a, b).backward()
        assert a.grad.device.type == "meta"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau": 0.0}, r"tau must be > 0, got 0\.0"),
        ({"beta": -1.0}, r"beta must be >= 0 and finite, got -1\.0"),
        ({"beta": float("inf")}, r"beta must be >= 0 and finite, got inf"),
        ({"tau_plus": 1.0}, r"tau_plus must lie in \[0, 1\), got 1\.0"),
        ({"tau_plus": -0.1}, r"tau_plus must lie in \[0, 1\), got -0\.1"),
        ({"keys1": torch.ones(3, 2)}, r"keys1 and keys2 go together"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        hard_infonce(rows(3, 2), rows(3, 2), **options)
