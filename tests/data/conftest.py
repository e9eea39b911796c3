import pytest

from graphcl.data import sources


@pytest.fixture
def no_network_and_an_own_cache(monkeypatch, tmp_path):
    """Nothing is read from or written to the developer's own folders, and nothing is downloaded but from files."""
    monkeypatch.setenv("GRAPHCL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GRAPHCL_DATA", raising=False)
    reach = sources.urllib.request.urlopen

    def only_files(url, **options):
        if not url.startswith("file:"):
            raise OSError("no network in this test")
        return reach(url, **options)

    monkeypatch.setattr(sources.urllib.request, "urlopen", only_files)
