"""Fixtures of the tests of all ops."""

from collections.abc import Iterator

import pytest

from autoreid_fast import ops


@pytest.fixture(params=["avx512", "avx2", "portable", "reference"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every implementation that this machine can run on the CPU."""
    if request.param == "reference":
        with ops.backend("reference"):
            yield "reference"
        return
    native = pytest.importorskip("autoreid_fast._cpu", reason="no native library: pure-Python install")
    try:
        native.use_instruction_set(request.param)
    except ValueError as error:
        pytest.skip(str(error))
    yield request.param
    native.use_instruction_set("best")
