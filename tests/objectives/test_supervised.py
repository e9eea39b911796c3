import pytest
import torch
from device_guards import device_clean, to_meta
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_checks import assert_same, rows, values_and_gradients
from references import supcon_by_hand

from graphcl.objectives import ntxent, streamed, supcon


@settings(max_examples=25, deadline=None)
@given(
    labels=st.lists(st.integers(-1, 2), min_size=1, max_size=6),
    tau=st.sampled_from([0.01, 0.1, 0.5, 5.0]),
    seed=st.integers(0, 99),
)
def test_labels_and_their_mask_are_the_papers_sum(labels, tau, seed):
    z1, z2 = rows(len(labels), 4, seed), rows(len(labels), 4, seed + 1)
    together = [[a == b != -1 for b in labels] for a in labels]
    wanted = values_and_gradients(lambda a, b: supcon_by_hand(a, b, tau, together), z1, z2)
    assert_same(values_and_gradients(lambda a, b: supcon(a, b, torch.tensor(labels), tau), z1, z2), wanted)
    mask = torch.tensor(together)
    assert_same(values_and_gradients(lambda a, b: supcon(a, b, tau=tau, positives=mask), z1, z2), wanted)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 6), seed=st.integers(0, 99))
def test_any_mask_of_positives_is_the_papers_sum(n, seed):
    mask = torch.rand(n, n, generator=torch.Generator().manual_seed(seed)) < 0.4  # not symmetric
    z1, z2 = rows(n, 4, seed), rows(n, 4, seed + 1)
    assert_same(
        values_and_gradients(lambda a, b: supcon(a, b, tau=0.2, positives=mask), z1, z2),
        values_and_gradients(lambda a, b: supcon_by_hand(a, b, 0.2, mask.tolist()), z1, z2),
    )


@pytest.mark.parametrize("labels", [torch.arange(9), torch.full((9,), -1)])
def test_without_a_class_of_two_it_is_ntxent(labels):
    z1, z2 = rows(9, 4, 1), rows(9, 4, 2)
    assert_same(
        values_and_gradients(lambda a, b: supcon(a, b, labels, 0.2), z1, z2),
        values_and_gradients(lambda a, b: ntxent(a, b, 0.2), z1, z2),
    )


def test_the_names_of_the_classes_do_not_matter():
    z1, z2, labels = rows(9, 4, 3), rows(9, 4, 4), torch.tensor([0, 1, 2, 0, 1, 2, -1, 0, 0])
    renamed = torch.where(labels == -1, -1, 100 - 7 * labels)
    assert supcon(z1, z2, labels).item() == pytest.approx(supcon(z1, z2, renamed).item(), rel=1e-12)


def test_the_size_of_the_blocks_does_not_matter(monkeypatch):
    z1, z2, mask = rows(11, 4, 5), rows(11, 4, 6), torch.eye(11).bool().roll(2, 1)
    whole = values_and_gradients(lambda a, b: supcon(a, b, positives=mask), z1, z2)
    real = streamed.rowwise
    for block in (1, 5, 21):
        monkeypatch.setattr(streamed, "rowwise", lambda *a, block=block: real(*a, block=block))
        assert_same(values_and_gradients(lambda a, b: supcon(a, b, positives=mask), z1, z2), whole)


@pytest.mark.parametrize("tau", [0.005, 0.1])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_it_is_finite_and_right_in_low_precision(tau, dtype):
    z1, z2, labels = rows(40, 8, 7).to(dtype), rows(40, 8, 8).to(dtype), torch.arange(40) % 4
    z1[0], z2[0], z2[3] = 0, 0, 0
    mask = labels[:, None] == labels
    full = values_and_gradients(lambda a, b: supcon(a, b, labels, tau), z1.double(), z2.double())
    for options in ({"labels": labels}, {"positives": mask}):
        low = values_and_gradients(lambda a, b, options=options: supcon(a, b, tau=tau, **options), z1, z2)
        assert low[0].item() == pytest.approx(full[0].item(), rel=1e-3)
        for got, wanted in zip(low[1:], full[1:], strict=True):
            torch.testing.assert_close(got.double(), wanted, rtol=0.02, atol=0.02 * wanted.abs().max().item())


def test_it_compiles_and_stays_on_the_device():
    torch.compiler.reset()
    z1, z2, labels = rows(6, 3, 9), rows(6, 3, 10), torch.tensor([0, 1, 0, -1, 1, 2])
    compiled = torch.compile(lambda a, b: supcon(a, b, labels), fullgraph=True, backend="aot_eager")
    assert_same(values_and_gradients(compiled, z1, z2), values_and_gradients(lambda a, b: supcon(a, b, labels), z1, z2))
    with device_clean() as mode:
        a, b, names = to_meta(z1, mode).requires_grad_(), to_meta(z2, mode), to_meta(labels, mode)
        (supcon(a, b, names) + supcon(a, b, positives=names[:, None] == names)).backward()
        assert a.grad.device.type == "meta"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"give either labels \[N\] or positives \[N, N\]"),
        ({"labels": torch.zeros(3).long(), "positives": torch.eye(3).bool()}, r"give either labels"),
        ({"labels": torch.zeros(4).long()}, r"labels must be \[3\], got \[4\]"),
        ({"labels": torch.zeros(3)}, r"labels must be integers, got torch\.float32"),
        ({"labels": torch.zeros(3, dtype=torch.bool)}, r"labels must be integers, got torch\.bool"),
        ({"positives": torch.eye(3)}, r"positives must be a bool mask, got torch\.float32"),
        ({"positives": torch.eye(4).bool()}, r"positives must be \[3, 3\], got \[4, 4\]"),
        ({"labels": torch.zeros(3).long(), "tau": 0.0}, r"tau must be > 0, got 0\.0"),
    ],
)
def test_labels_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        supcon(rows(3, 2), rows(3, 2), **options)
