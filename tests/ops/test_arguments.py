"""Argument tables: the exact wording of every kind of error, and what is accepted."""

from typing import Any

import pytest
import torch

from autoreid_fast.errors import AutoReIDError
from autoreid_fast.ops.arguments import (
    MAX_POSITIONS,
    AccumulationOf,
    Arguments,
    Choice,
    Limit,
    Number,
    SameAs,
    TensorArgument,
    TensorListArgument,
    Values,
)

F16, F32, F64, I64 = torch.float16, torch.float32, torch.float64, torch.int64
TABLE = Arguments(
    "op",
    (
        TensorArgument("x", ("N", "C", ...), (F16, F32, F64)),
        TensorArgument("like", ("C", 2), SameAs("x"), contiguous=True),
        TensorArgument("sums", ("N+1",), AccumulationOf("x"), optional=True),
        TensorListArgument("parts", "K", ("C",), (F32, F16), optional_entries=True),
        Values("flags", "K", (1, 2)),
        Choice("mode", ("up", "down", 3)),
        Number("k", 1, "N"),
        Number("ratio", 0, 1),
        TensorArgument("index", ("M",), (I64,), optional=True),
        TensorArgument("mask", ("M",), (torch.bool,), optional=True),
    ),
    limits=(Limit("N*C", maximum=30, hint="split the batch"), Limit("C", minimum=2)),
    may_be_zero=("M",),
    together=(("index", "mask"),),
)


def call(**changed: Any) -> dict[str, Any]:
    valid = {
        "x": torch.ones(4, 3, 5),
        "like": torch.ones(3, 2),
        "sums": torch.ones(5),
        "parts": [torch.ones(3), None],
        "flags": (1, 2),
        "mode": "up",
        "k": 4,
        "ratio": 0.5,
        "index": torch.ones(2).long(),
        "mask": torch.ones(2).bool(),
    }
    return valid | changed


def test_valid_calls_are_accepted() -> None:
    half = {"x": torch.ones(4, 3).half(), "like": torch.ones(3, 2).half()}
    none = {"sums": None, "index": None, "mask": None}
    empty = {"index": torch.ones(0).long(), "mask": torch.ones(0).bool()}
    for changed in (
        {},
        half,
        none,
        empty,
        {"mode": 3, "k": 1, "ratio": 1, "parts": [None, torch.ones(3).half()]},
    ):
        TABLE.check(**call(**changed))
    double = {
        "x": torch.ones(4, 3).double(),
        "like": torch.ones(3, 2).double(),
        "sums": torch.ones(5).double(),
    }
    TABLE.check(**call(**double))
    assert 2**31 - 2**13 < MAX_POSITIONS < 2**31


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x": [1.0]}, "`x` has type list; expected a tensor"),
        ({"x": None}, "`x` has type NoneType; expected a tensor"),
        ({"x": torch.ones(4)}, "`x` has shape (4,); expected (N, C, ...)"),
        ({"x": torch.ones(4, 3).long()},
         "`x` is torch.int64; expected torch.float16, torch.float32 or torch.float64: "
         "call x.to(torch.float16)"),
        ({"x": torch.ones(4, 0), "like": torch.ones(0, 2), "parts": [torch.ones(0), None]},
         "`x` has shape (4, 0); expected C >= 1 in (N, C, ...)"),
        ({"like": torch.ones(4, 2)}, "`like` has shape (4, 2); expected (C, 2) with C = 3 as in `x`"),
        ({"like": torch.ones(3, 2).half()},
         "`like` is torch.float16; expected torch.float32 with `x` torch.float32: "
         "call like.to(torch.float32)"),
        ({"like": torch.ones(2, 3).T}, "`like` is not contiguous; expected a contiguous tensor: "
         "call like.contiguous()"),
        ({"like": torch.ones(3, 2, device="meta")}, "`like` is on meta; expected cpu, the device of `x`: "
         'call like.to("cpu")'),
        ({"sums": torch.ones(4)}, "`sums` has shape (4,); expected (N + 1,) with N = 4 as in `x`"),
        ({"x": torch.ones(4, 3).half(), "like": torch.ones(3, 2).half(), "sums": torch.ones(5).half()},
         "`sums` is torch.float16; expected torch.float32 with `x` torch.float16: "
         "call sums.to(torch.float32)"),
        ({"parts": torch.ones(2, 3)}, "`parts` has type Tensor; expected a list of tensors"),
        ({"parts": []}, "`parts` is empty; expected at least one tensor"),
        ({"parts": [torch.ones(3), torch.ones(3).half()]},
         "`parts[1]` is torch.float16; expected torch.float32 with `parts` torch.float32: "
         "call parts[1].to(torch.float32)"),
        ({"flags": (1,)}, "`flags` has 1 entries; expected K with K = 2 as in `parts`"),
        ({"flags": (1, 3)}, "`flags` is (1, 3); expected only 1 or 2"),
        ({"flags": 1}, "`flags` has type int; expected a list of 1 or 2"),
        ({"mode": "left"}, "`mode` is 'left'; expected 'up', 'down' or 3"),
        ({"k": 5}, "`k` is 5; expected 1 to 4 with N = 4 as in `x`"),
        ({"k": 0}, "`k` is 0; expected 1 to 4 with N = 4 as in `x`"),
        ({"ratio": -1}, "`ratio` is -1; expected 0 to 1"),
        ({"x": torch.ones(11, 3), "sums": None},
         "`x` has shape (11, 3); expected N * C <= 30: split the batch"),
        ({"x": torch.ones(4, 1), "like": torch.ones(1, 2), "parts": [torch.ones(1), None]},
         "`x` has shape (4, 1); expected 2 <= C"),
        ({"mask": None}, "`mask` is None; expected a tensor, as `index` is given: give both or neither"),
        ({"index": None}, "`index` is None; expected a tensor, as `mask` is given: give both or neither"),
    ],
)  # fmt: skip
def test_wording(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(AutoReIDError) as caught:
        TABLE.check(**call(**changed))
    assert str(caught.value) == f"op: {message}"


def test_a_limit_on_the_length_of_a_list() -> None:
    table = Arguments(
        "op",
        (TensorListArgument("parts", "K", ("C",), (F32,)), Number("k", 1)),
        limits=(Limit("K", maximum=2, hint="split it"),),
    )
    with pytest.raises(AutoReIDError, match="`parts` has 3 entries; expected K <= 2: split it"):
        table.check(parts=[torch.ones(1)] * 3, k=1)
    with pytest.raises(AutoReIDError, match="`k` is 0; expected at least 1"):
        table.check(parts=[torch.ones(1)], k=0)
