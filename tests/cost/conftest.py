import pytest

from support import tiny


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Saved tiny models, a folder each."""
    root = tmp_path_factory.mktemp("models")
    tiny.vace_pipe().save_pretrained(root / "wan-vace")
    tiny.wan_pipe().save_pretrained(root / "wan")
    return {path.name: str(path) for path in root.iterdir()}
