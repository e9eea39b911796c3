"""GraphCL: contrast the graphs of a batch in two augmented views.

Paper:   You et al., 2020, "Graph Contrastive Learning with Augmentations", NeurIPS, arXiv:2010.13902
Loss:    graphcl/objectives/infonce.py: infonce (default), ntxent, or graphcl_code, the form of the authors' code
Config:  configs/graphcl.yaml
Differs: the default objective keeps the positive in the denominator and contrasts in both directions; the authors'
         code leaves the positive out and goes from view 1 to view 2 only (`objective: graphcl_code`).
         That code also starts linear layers by xavier, adds self-loops to the graph that is not augmented, and has
         the same batches in every epoch; ours has torch's start, adds none, and draws batches anew.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch_geometric.data import Data

from graphcl.distributed import gather, gather_views
from graphcl.heads import mlp
from graphcl.methods.method import Encoder, Method, View
from graphcl.methods.rows import both
from graphcl.objectives import graphcl_code, infonce, ntxent


class GraphCL(Method):
    """encoder and readout give [B, D]; view1 and view2 augment the whole batch; tau is the temperature.

    one_pass: both views through the encoder at once (methods/rows.py, both); the authors take one after the other.
    """

    levels = ("graph",)
    contrasts_batch = True

    def __init__(
        self,
        encoder: Encoder,
        readout: nn.Module,
        view1: View,
        view2: View,
        *,
        proj_dim: int | None = None,
        tau: float = 0.2,
        objective: str = "infonce",
        one_pass: bool = False,
    ) -> None:
        super().__init__()
        if objective not in ("infonce", "ntxent", "graphcl_code"):
            raise ValueError(f"objective must be infonce, ntxent or graphcl_code, got {objective!r}")
        self.encoder, self.readout, self.view1, self.view2 = encoder, readout, view1, view2
        width = encoder.out_dim if proj_dim is None else proj_dim
        self.project = mlp(encoder.out_dim, width, width)
        self.tau, self.objective, self.one_pass = tau, objective, one_pass

    def loss(self, data: Data, group: str = "model") -> dict[str, Tensor]:
        h1, h2 = both(self.encoder, self.view1(data), self.view2(data), self.readout, one_pass=self.one_pass)
        z1, z2 = self.project(h1), self.project(h2)  # [B, P]
        if self.objective == "graphcl_code":
            return {"loss": graphcl_code(gather(z1)[0], gather(z2)[0], self.tau)}
        contrast = {"infonce": infonce, "ntxent": ntxent}[self.objective]
        return {"loss": contrast(z1, z2, self.tau, **gather_views(z1, z2))}

    def encode(self, data: Data) -> Tensor:
        return self.readout(self.encoder(data), data)
