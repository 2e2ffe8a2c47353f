"""Models that leave parts to the folder `shared` beside them, as the built-in ones do."""

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import WanPipeline, WanVACEPipeline

from kvlock.backbones.checkpoints import export_folder, family_of, weights_digest
from kvlock.backbones.loading import load_backbone
from kvlock.cost.skeleton import skeleton
from support import tiny

PARTS = ("vae", "text_encoder", "tokenizer", "scheduler")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Ordinary folders, and the same two with one copy of what they have in common."""
    root = tmp_path_factory.mktemp("models")
    for name, pipe in (("wan", tiny.wan_pipe()), ("vace", tiny.vace_pipe())):
        pipe.save_pretrained(root / "ordinary" / name)
        shutil.copytree(root / "ordinary" / name, root / "joint" / name)
        for part in PARTS:
            shutil.rmtree(root / "joint" / "shared" / part, ignore_errors=True)
            shutil.move(root / "joint" / name / part, root / "joint" / "shared" / part)
    return root


@pytest.fixture
def joint(models, tmp_path):
    return shutil.copytree(models / "joint", tmp_path / "joint")


@pytest.mark.parametrize("name", ["wan", "vace"])
def test_what_is_loaded_is_the_ordinary_folders(models, name):
    ordinary, joint = (str(models / kind / name) for kind in ("ordinary", "joint"))
    assert weights_digest(ordinary) == weights_digest(joint)
    assert family_of(ordinary) == family_of(joint)
    whole, assembled = (load_backbone(folder).pipe for folder in (ordinary, joint))
    for part in ("transformer", "vae", "text_encoder"):
        expected = getattr(whole, part).state_dict()
        found = getattr(assembled, part).state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected)
    for part in ("tokenizer", "scheduler"):
        assert type(getattr(assembled, part)) is type(getattr(whole, part))
    assert assembled.tokenizer("a red cat").input_ids == whole.tokenizer("a red cat").input_ids
    assert assembled.scheduler.config == whole.scheduler.config
    counts = [
        sum(p.numel() for p in skeleton(folder).pipe.vae.parameters())
        for folder in (ordinary, joint)
    ]
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("name, cls", [("wan", WanPipeline), ("vace", WanVACEPipeline)])
def test_an_exported_model_is_the_ordinary_folder_to_the_byte(models, tmp_path, name, cls):
    export_folder(str(models / "joint" / name), tmp_path / "out")
    expected = models / "ordinary" / name
    files = {p.relative_to(expected) for p in expected.rglob("*") if p.is_file()}
    assert {p.relative_to(tmp_path / "out") for p in _files(tmp_path / "out")} == files
    for file in files:
        assert (tmp_path / "out" / file).read_bytes() == (expected / file).read_bytes()
    cls.from_pretrained(tmp_path / "out", local_files_only=True)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_the_digest_follows_the_shared_weights(joint):
    before = [weights_digest(str(joint / name)) for name in ("wan", "vace")]
    file = joint / "shared" / "vae" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    after = [weights_digest(str(joint / name)) for name in ("wan", "vace")]
    assert all(a != b for a, b in zip(after, before))


def test_a_part_of_its_own_comes_before_the_shared_one(models, joint):
    own = tiny.vae()
    with torch.no_grad():
        own.quant_conv.bias.fill_(0.5)
    own.save_pretrained(joint / "vace" / "vae")
    biases = [load_backbone(str(joint / n)).pipe.vae.quant_conv.bias for n in ("vace", "wan")]
    assert (biases[0] == 0.5).all() and not (biases[1] == 0.5).any()


def test_shared_parts_that_are_not_whole_are_refused_by_their_file(joint, tmp_path):
    file = joint / "shared" / "text_encoder" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ValueError, match="shared/text_encoder/model.safetensors has .* bytes"):
        load_backbone(str(joint / "vace"))
    shutil.rmtree(joint / "shared" / "tokenizer")
    for use in (load_backbone, lambda model: export_folder(model, tmp_path / "out")):
        with pytest.raises(ValueError, match="lacks its component 'tokenizer'"):
            use(str(joint / "vace"))
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_exported_is_refused(models, tmp_path):
    with pytest.raises(ValueError, match="is there already; expected a new folder"):
        export_folder(str(models / "joint" / "vace"), tmp_path)
    with pytest.raises(ValueError, match="no folder on this machine; type hf download Wan-AI/Wan2"):
        export_folder("wan2.1-vace-1.3b", tmp_path / "out")
