"""Losses as pure functions of tensors. They know nothing of graphs: examples/digits.py trains a CNN by them."""

from graphcl.objectives.bootstrap import bootstrap
from graphcl.objectives.hard_negatives import debiased_infonce, hard_infonce
from graphcl.objectives.infonce import InfoNCE, NTXent, graphcl_code, infonce, ntxent, queue_infonce
from graphcl.objectives.jsd import dgi_bce, jsd, jsd_matrix
from graphcl.objectives.nce import draw_negatives, nce, nce_constant
from graphcl.objectives.supervised import supcon

__all__ = [
    "InfoNCE",
    "NTXent",
    "bootstrap",
    "debiased_infonce",
    "dgi_bce",
    "draw_negatives",
    "graphcl_code",
    "hard_infonce",
    "infonce",
    "jsd",
    "jsd_matrix",
    "nce",
    "nce_constant",
    "ntxent",
    "queue_infonce",
    "supcon",
]
