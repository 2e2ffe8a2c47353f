import pytest
from diffusers import WanTransformer3DModel

from support import tiny


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Saved tiny models, a folder each; `deep` has layers enough to be counted on few of them, `wide`
    keys and values that take more than all else."""
    root = tmp_path_factory.mktemp("models")
    tiny.vace_pipe().save_pretrained(root / "wan-vace")
    tiny.wan_pipe().save_pretrained(root / "wan")
    tiny.vace_pipe(num_layers=10).save_pretrained(root / "deep")
    wide = tiny.wan_pipe()
    size = dict(num_attention_heads=4, attention_head_dim=24, num_layers=8)
    wide.transformer = WanTransformer3DModel(**tiny.TRANSFORMER | size)
    wide.save_pretrained(root / "wide")
    return {path.name: str(path) for path in root.iterdir()}
