"""A linear layer on features that are mostly zero (bags of words): the zeros are skipped, the result is the same."""

from __future__ import annotations

from torch import Tensor
from torch_geometric.nn.dense.linear import Linear

from graphcl.encoders.aggregate import CSR, entry_sum, remembered


class SparseLinear(Linear):
    """PyG's Linear for x [N, F] with few entries that are not zero: x @ weight.T + bias, [N, D].

    On Cora (1.3 % not zero) this replaces 2,708 x 1,433 x D products by 49,216 x D. The entries are looked for once for
    each tensor x. Where x itself needs a gradient (a mask token), it is the dense product.
    """

    def __init__(
        self, in_dim: int, out_dim: int, bias: bool = False, weight_initializer: str | None = "glorot"
    ) -> None:
        super().__init__(in_dim, out_dim, bias=bias, weight_initializer=weight_initializer)

    def forward(self, x: Tensor) -> Tensor:
        """x: [N, F]. Returns [N, D]."""
        out = self.product(x)
        return out if self.bias is None else out + self.bias

    def product(self, x: Tensor) -> Tensor:
        """x @ weight.T [N, D]."""
        if x.requires_grad:
            return x @ self.weight.t()
        entries, values = remembered("entries", lambda: CSR.of_matrix(x), x)
        return entry_sum(self.weight.t(), entries, values)
