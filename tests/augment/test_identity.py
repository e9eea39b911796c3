from __future__ import annotations

import graphs
import pytest

from augment import Identity

ODD = graphs.odd_batches()


@pytest.mark.parametrize("odd", list(ODD))
def test_gives_the_same_tensors(odd):
    batch = ODD[odd]
    out = Identity()(batch)
    assert set(out.keys()) == set(batch.keys())
    assert all(out[key] is batch[key] for key in set(batch.keys()))


def test_gives_a_new_container():
    """So that what a later view rebinds does not show in the input."""
    batch = ODD["ordinary"]
    out = Identity()(batch)
    out.x = out.x + 1
    assert not out.x.equal(batch.x)
