"""What the trainer knows of a method: the whole contract, and no behaviour."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from torch import Tensor, nn
from torch_geometric.data import Data

Encoder = Any  # an nn.Module (data) -> [N, out_dim] that has the attribute out_dim
View = Callable[[Data], Data]  # of a graph or of a whole Batch


class Method(nn.Module):
    """A pretraining method. `loss` and `encode` are to be written; the hooks do nothing unless written."""

    levels: ClassVar[tuple[str, ...]] = ()  # "node", "graph": what its embeddings can stand for
    needs_labels: ClassVar[bool] = False  # if not, the loader hides every label from it
    contrasts_batch: ClassVar[bool] = False  # its negatives are the batch's other graphs: one alone teaches nothing

    def loss(self, data: Any, group: str = "model") -> dict[str, Tensor]:
        """Loss of one batch on the method's device: {"loss": scalar, and scalar parts to log}.

        `group` is the player whose turn it is.
        """
        raise NotImplementedError(f"{type(self).__name__} has no loss")

    def encode(self, data: Any) -> Tensor:
        """Embeddings for evaluation: [N, D] for nodes, [B, D] for graphs."""
        raise NotImplementedError(f"{type(self).__name__} has no encode")

    def groups(self) -> dict[str, Iterable[nn.Parameter]]:
        """The players and their parameters; each has its own optimizer and takes its own step, in this order."""
        return {"model": self.parameters()}

    def after_step(self, progress: float) -> None:
        """After the optimizers' steps (EMA, queue). `progress` in (0, 1] is the share of the run that is done."""

    def before_epoch(self, loader: Iterable[Any], epoch: int) -> None:
        """Before an epoch (E-steps). `loader` gives the data un-augmented, in data-set order, with ids."""

    def after_epoch(self, metrics: dict[str, float]) -> None:
        """After an epoch, with its mean losses."""
