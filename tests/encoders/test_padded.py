"""Padding to round sizes: the same numbers and gradients, and only where products are in bfloat16 on the CPU."""

import pytest
import torch

from graphcl.data.molecules import molecules_to_store
from graphcl.encoders import MoleculeGIN
from graphcl.encoders import padded as module
from graphcl.encoders.padded import short_rows, with_rows


@pytest.mark.parametrize(("n", "more"), [(0, 0), (1, 63), (63, 1), (64, 0), (65, 63)])
def test_rows_up_to_a_multiple_of_64(n, more):
    h = torch.randn(n, 3)
    assert short_rows(h) == 0 and short_rows(h.bfloat16()) == more
    with torch.autocast("cpu", torch.bfloat16):
        assert short_rows(h) == more
    wide = with_rows(h, more)
    assert torch.equal(wide[:n], h) and wide.shape == (n + more, 3) and not wide[n:].any()


def test_rows_are_added_for_the_products_alone(monkeypatch):
    """Outputs and gradients of the encoder are those without padding, batch norms included."""
    smiles = ["C" * (1 + i % 7) + "O" for i in range(20)] + ["C"]
    batch = molecules_to_store(smiles)[0].batch(torch.arange(21))
    encoder = MoleculeGIN(16, layers=3)
    found = []
    for rows in (64, 1):  # a multiple of 1 is no padding
        monkeypatch.setattr(module, "ROWS", rows)
        encoder.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            h = encoder(batch)
        h.float().square().sum().backward()
        found.append([h, *(parameter.grad for parameter in encoder.parameters())])
    for padded, plain in zip(*found, strict=True):
        torch.testing.assert_close(padded, plain, rtol=2e-2, atol=2e-2 * plain.abs().max().item() + 1e-3)
