from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture
def shared():
    """A function: the real file below the shared data folder, or skip where it does not lie there."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"the shared data folder with {name} is not beside this checkout")
        return path

    return find


@pytest.fixture
def offline(monkeypatch):
    """No test asks the network: each address counts as unreachable."""
    import urllib.request

    asked = []

    def refuse(request, *args, **kwargs):
        asked.append(request if isinstance(request, str) else request.full_url)
        raise urllib.request.URLError("no network in tests")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return asked
