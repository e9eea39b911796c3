"""Both ways to run a view: loops that numba compiles, where it is installed, and torch alone."""

import pytest

from augment import _native

pytest.register_assert_rewrite("view_contract")


@pytest.fixture
def torch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if numba was not installed."""
    monkeypatch.setattr(_native, "native", lambda: None)


@pytest.fixture(params=["torch", "native"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way in turn; the compiled one is skipped without numba."""
    if request.param == "torch":
        monkeypatch.setattr(_native, "native", lambda: None)
    elif _native.native() is None:
        pytest.skip("needs numba")
    return str(request.param)
