"""Encoders: (data) -> [N, out_dim]. `ENCODERS` has them by the name that a config gives."""

from torch import nn

from graphcl.encoders.gat import GAT
from graphcl.encoders.gcn import GCN
from graphcl.encoders.gin import GIN
from graphcl.encoders.molecule import MoleculeGAT, MoleculeGCN, MoleculeGIN, MoleculeSAGE
from graphcl.encoders.readout import Readout
from graphcl.encoders.resgcn import ResGCN
from graphcl.encoders.sage import SAGE

# Made as ENCODERS[name](in_dim, **settings); without in_dim where the class says `takes_in_dim = False`.
ENCODERS: dict[str, type[nn.Module]] = {
    "gin": GIN,
    "gcn": GCN,
    "sage": SAGE,
    "gat": GAT,
    "resgcn": ResGCN,
    "molecule_gin": MoleculeGIN,
    "molecule_gcn": MoleculeGCN,
    "molecule_sage": MoleculeSAGE,
    "molecule_gat": MoleculeGAT,
}
