import pytest

from support import tiny


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Saved tiny models, a folder each; `deep` has layers enough to be counted on few of them."""
    root = tmp_path_factory.mktemp("models")
    tiny.vace_pipe().save_pretrained(root / "wan-vace")
    tiny.wan_pipe().save_pretrained(root / "wan")
    tiny.vace_pipe(num_layers=10).save_pretrained(root / "deep")
    return {path.name: str(path) for path in root.iterdir()}
