"""The packed product is the plain one, faster."""

import pytest
import torch
from torch import nn

from worker.engine import packed_linear
from worker.engine.packed_linear import PackedLinear, pack_linears


class Tiny(nn.Module):  # type: ignore[misc]  # torch is Any to mypy
    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(24, 40)
        self.inner = nn.Sequential(nn.Linear(40, 16, bias=False), nn.ReLU())

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.inner(self.first(rows))


@pytest.mark.parametrize("rows", [1, 2, 8, 33, 130])
def test_any_number_of_rows_gives_the_plain_product(rows: int) -> None:
    with torch.inference_mode():
        model, batch = Tiny(), torch.randn(1, rows, 24)
        plain = model(batch)
        assert pack_linears(model)
        assert torch.allclose(model(batch), plain, rtol=1e-4, atol=1e-5)


def test_every_linear_is_packed() -> None:
    model = Tiny().requires_grad_(False)
    assert pack_linears(model)
    assert isinstance(model.first, PackedLinear)
    assert isinstance(model.inner[0], PackedLinear)


@pytest.mark.parametrize("trait", [("dtype", torch.bfloat16), ("device", torch.device("meta"))])
def test_other_kinds_of_numbers_and_devices_stay_as_they_are(trait: tuple[str, object]) -> None:
    model = Tiny()
    setattr(model, *trait)
    assert not pack_linears(model)
    assert type(model.first) is nn.Linear


def test_where_torch_has_no_such_product_the_model_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: object) -> None:
        raise AttributeError("no such operator")

    monkeypatch.setattr(packed_linear, "PackedLinear", gone)
    model = Tiny()
    assert not pack_linears(model)
    assert type(model.first) is nn.Linear


def test_where_the_product_differs_the_model_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_linear, "PackedLinear", lambda linear: lambda rows: linear(rows) + 1)
    assert not pack_linears(Tiny().requires_grad_(False))
