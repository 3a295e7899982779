"""Matrix products that are fast for a handful of rows on a CPU.

Decoding multiplies 1 to 16 rows with every weight of the model. `torch.nn.Linear` hands that to MKL, which takes two to five
times as long as the memory needs, more for two rows than for eight. oneDNN, in the same torch, keeps up with the memory
once it has laid out the weights its own way. The numbers are float32 as before; decisions/0011 has the figures.

The two operators are torch's own, but not public: the compiler uses them. So they are tried once on the model's own weights,
and where they are missing or differ the model stays as it was.
"""

from typing import Any, Final

import structlog
import torch
from torch import nn

ROWS: Final = 8
"""The number of rows the layout is chosen for. Any number works."""

log = structlog.get_logger(__name__)


class PackedLinear(nn.Module):  # type: ignore[misc]  # torch is Any to mypy
    """`nn.Linear` for inference, with its weight laid out for oneDNN. The plain weight is let go."""

    def __init__(self, linear: Any) -> None:
        super().__init__()
        self.bias = linear.bias
        self._packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), ROWS)
        self._product = torch.ops.mkldnn._linear_pointwise.default

    def forward(self, rows: Any) -> Any:
        return self._product(rows, self._packed, self.bias, "none", [], "")


def pack_linears(model: Any) -> bool:
    """Replaces every `nn.Linear` of a float32 CPU model. False, and nothing changed, where that cannot be."""
    if model.device.type != "cpu" or model.dtype != torch.float32 or not torch.backends.mkldnn.is_available():
        return False
    linears = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is nn.Linear
    ]
    if not linears or not _same_product(linears[0][2]):
        return False
    for parent, name, linear in linears:
        setattr(parent, name, PackedLinear(linear))
    # What is left, embedding and norms, is a view into the mapped file, and keeps all of it in this process' memory.
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(parameter.detach().clone(), requires_grad=False))
    return True


def _same_product(linear: Any) -> bool:
    rows = torch.linspace(-1, 1, 3 * linear.in_features).reshape(1, 3, linear.in_features)
    try:
        same = bool(torch.allclose(PackedLinear(linear)(rows), linear(rows), rtol=1e-4, atol=1e-4))
    except (AttributeError, RuntimeError) as error:  # another torch, or a processor that oneDNN has no kernel for
        log.info("weights stay as they are: no packed product", error=str(error).partition("\n")[0])
        return False
    if not same:
        log.warning("weights stay as they are: the packed product differs")
    return same
