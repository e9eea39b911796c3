import math

import pytest
import torch
from references import dgi_by_hand, jsd_by_hand
from torch import Tensor

from graphcl.objectives import dgi_bce, jsd, jsd_matrix


def scores(*shape: int, seed: int = 0, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def value_and_gradients(loss, *inputs: Tensor) -> list[Tensor]:
    leaves = [x.clone().requires_grad_() for x in inputs]
    value = loss(*leaves)
    return [value.detach(), *torch.autograd.grad(value, leaves)]


@pytest.mark.parametrize("sizes", [(1, 1), (5, 5), (3, 8)])
@pytest.mark.parametrize(("ours", "paper"), [(jsd, jsd_by_hand), (dgi_bce, dgi_by_hand)])
def test_it_is_the_papers_sum(ours, paper, sizes):
    positive, negative = scores(sizes[0], seed=1), scores(sizes[1], seed=2)
    got, wanted = value_and_gradients(ours, positive, negative), value_and_gradients(paper, positive, negative)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_the_matrix_form_is_the_sum_over_its_pairs():
    matrix, graph = scores(7, 3, seed=3), torch.tensor([0, 0, 1, 1, 1, 2, 2])
    mask = graph[:, None] == torch.arange(3)
    got = value_and_gradients(lambda m: jsd_matrix(m, mask), matrix)
    wanted = value_and_gradients(lambda m: jsd_by_hand(m[mask], m[~mask]), matrix)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_the_matrix_form_does_not_depend_on_the_order_of_nodes_or_graphs():
    matrix, mask = scores(6, 4, seed=4), torch.rand(6, 4, generator=torch.Generator().manual_seed(5)) < 0.4
    nodes, graphs = torch.tensor([5, 0, 3, 1, 2, 4]), torch.tensor([2, 0, 3, 1])
    shuffled = jsd_matrix(matrix[nodes][:, graphs], mask[nodes][:, graphs])
    assert shuffled.item() == pytest.approx(jsd_matrix(matrix, mask).item(), rel=1e-12)


def test_one_graph_has_no_negatives_and_stays_finite():
    matrix = scores(5, 1, seed=6)
    for tensor in value_and_gradients(lambda m: jsd_matrix(m, torch.ones(5, 1, dtype=torch.bool)), matrix):
        assert tensor.isfinite().all()


def test_blind_scores_cost_nothing_or_log_two():
    zeros = torch.zeros(6)
    assert jsd(zeros, zeros).item() == pytest.approx(0, abs=1e-6)
    assert dgi_bce(zeros, zeros).item() == pytest.approx(math.log(2), rel=1e-6)


@pytest.mark.parametrize("objective", [jsd, dgi_bce])
def test_a_sharper_discriminator_costs_less(objective):
    up, down = torch.full((4,), 1.0), torch.full((4,), -1.0)
    assert objective(3 * up, 3 * down) < objective(up, down) < objective(down, up)


@pytest.mark.parametrize("objective", [jsd, dgi_bce])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_extreme_scores_stay_finite(objective, dtype):
    huge = torch.tensor([1e4, -1e4, 0.0], dtype=dtype)
    for tensor in value_and_gradients(objective, huge, huge.flip(0)):
        assert tensor.isfinite().all()


@pytest.mark.parametrize("objective", [jsd, dgi_bce])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_scores_give_the_float32_loss(objective, dtype):
    positive, negative = scores(64, seed=7).to(dtype), scores(64, seed=8).to(dtype)
    wanted = objective(positive.float(), negative.float()).item()
    assert objective(positive, negative).item() == pytest.approx(wanted, rel=0.01, abs=0.01)


def test_calling_twice_gives_the_same():
    positive, negative = scores(5, seed=9), scores(5, seed=10)
    for objective in (jsd, dgi_bce):
        assert objective(positive, negative).item() == objective(positive, negative).item()
