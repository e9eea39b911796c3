import subprocess
import sys

import pytest
import torch
from torch import nn

from graphcl.heads import mlp


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("activation", ["relu", "prelu", "elu"])
def test_one_hidden_layer_of_the_widths_given(batch_norm, activation):
    head = mlp(5, 7, 3, batch_norm=batch_norm, activation=activation)
    assert [(m.in_features, m.out_features) for m in head if isinstance(m, nn.Linear)] == [(5, 7), (7, 3)]
    assert any(isinstance(m, nn.BatchNorm1d) for m in head) == batch_norm
    assert type(head[-2]).__name__.lower() == activation
    out = head(torch.randn(4, 5))
    assert out.shape == (4, 3)
    out.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


def test_without_batch_norm_one_row_does_not_see_the_others():
    head, x = mlp(5, 7, 3, activation="elu"), torch.randn(4, 5)
    torch.testing.assert_close(head(x[:1]), head(x)[:1])


def test_an_unknown_activation_names_the_known_ones():
    with pytest.raises(ValueError, match=r"no activation 'gelu'; known: relu, prelu, elu"):
        mlp(5, 7, 3, activation="gelu")


@pytest.mark.parametrize("widths", [(0, 7, 3), (5, 0, 3), (5, 7, -1)])
def test_a_width_below_one_is_refused(widths):
    with pytest.raises(ValueError, match=r"mlp: (in_dim|hidden|out_dim) must be >= 1, got (0|-1)"):
        mlp(*widths)


def test_the_core_is_imported_without_anything_of_graphs():
    code = (
        "import sys, graphcl.heads, graphcl.momentum, graphcl.distributed, graphcl.objectives; "
        "heavy = {'torch_geometric', 'networkx', 'augment', 'sklearn'} & sys.modules.keys(); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
