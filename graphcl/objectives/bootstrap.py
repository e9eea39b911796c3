"""Without negatives: predict the target network's view (BYOL, Grill et al., 2020; BGRL, Thakoor et al., 2022)."""

from __future__ import annotations

from torch import Tensor

from graphcl.objectives._cosine import check_pair, unit


def bootstrap(p: Tensor, z: Tensor) -> Tensor:
    """Mean of 2 - 2 cos(p_i, z_i) over rows; the gradient goes into the predictions alone.

    p: [N, D], the online network's predictions. z: [N, D], the target network's projections.
    Returns a scalar in [0, 4]. BYOL eq. 2, one direction; add the other with the views exchanged.
    """
    check_pair("p", p, "z", z)
    return (2 - 2 * (unit(p) * unit(z.detach())).sum(1)).mean()
