"""Weights that are not the model's own, whole and finite are refused by file and tensor."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import UMT5EncoderModel

from kvlock.backbones.integrity import check_tied
from kvlock.backbones.loading import load_backbone
from support import tiny

PARTS = {
    "transformer": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "vace"
    tiny.vace_pipe().save_pretrained(folder)
    return folder


@pytest.fixture(params=PARTS)
def broken(request, whole, tmp_path):
    """A copy of the folder, a file of weights in it, and its tensors."""
    folder = shutil.copytree(whole, tmp_path / "model")
    file = folder / request.param / PARTS[request.param]
    return folder, file, _tensors(file)


def _tensors(file):
    """In memory, so that the file can be written again."""
    return {name: tensor.clone() for name, tensor in load_file(file).items()}


def _refused(folder, file, tensors, message):
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=message) as error:
        load_backbone(str(folder))
    assert str(file) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("which", [0, 5])
def test_a_missing_tensor_is_named_with_its_file(broken, which):
    folder, file, tensors = broken
    name = sorted(tensors)[which]
    del tensors[name]
    _refused(folder, file, tensors, f"lacks the tensor '{name}'; download it again")


def test_several_missing_tensors_are_counted(broken):
    folder, file, tensors = broken
    for name in sorted(tensors)[:3]:
        del tensors[name]
    _refused(folder, file, tensors, "lacks the tensor .* and 2 more")


def test_a_tensor_that_the_model_does_not_have_is_named(broken):
    folder, file, tensors = broken
    tensors["something.else"] = torch.ones(3)
    _refused(folder, file, tensors, "holds a tensor that the model does not have, 'something.else'")


def test_a_tensor_of_another_shape_is_refused(broken):
    folder, file, tensors = broken
    name = max(tensors, key=lambda key: tensors[key].numel())
    tensors[name] = torch.zeros(7)
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=name.replace(".", "\\.")):
        load_backbone(str(folder))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_number_that_is_not_finite_is_found(broken, value, dtype):
    folder, file, tensors = broken
    name = sorted(tensors)[len(tensors) // 2]
    tensors[name].view(-1)[-1] = value
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="holds NaN or infinity in") as error:
        load_backbone(str(folder), dtype=dtype)
    assert str(file) in str(error.value) and repr(name) in str(error.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff" * 100, b"version https://git-lfs.github.com/spec/v1"],
    ids=["empty", "noise", "git-lfs"],
)
def test_files_that_are_no_weights_are_refused_in_a_sentence(broken, content):
    folder, file, _ = broken
    file.write_bytes(content)
    with pytest.raises(
        ValueError, match=f"{file}.*; (download it again|type git lfs pull)$"
    ) as error:
        load_backbone(str(folder))
    assert "\n" not in str(error.value)


def test_a_cut_off_file_is_refused(broken):
    folder, file, _ = broken
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ValueError, match="bytes, its header says .*; download it again"):
        load_backbone(str(folder))


def test_sharded_weights_are_checked_by_their_index(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "model")
    part = folder / "transformer"
    (part / PARTS["transformer"]).unlink()
    transformer = tiny.vace_pipe().transformer
    transformer.save_pretrained(part, max_shard_size="20KB")
    load_backbone(str(folder))
    index = json.loads(next(part.glob("*.index.json")).read_text())
    name, shard = next(iter(index["weight_map"].items()))
    tensors = _tensors(part / shard)
    tensors[name].view(-1)[0] = float("nan")
    save_file(tensors, part / shard, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"{shard} holds NaN or infinity in '{name}'"):
        load_backbone(str(folder))
    (part / shard).unlink()
    with pytest.raises(ValueError, match=f"lacks transformer/{shard}; download it again"):
        load_backbone(str(folder))


def test_a_text_encoder_whose_config_unties_its_embedding_loads_with_it_tied(whole, tmp_path):
    """As Wan ships it (transformers#43880): prompts must come out the same."""
    folder = shutil.copytree(whole, tmp_path / "model")
    config = folder / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tie_word_embeddings": False}))
    tied, untied = (load_backbone(str(f)).encode_prompt(["a red cat"]) for f in (whole, folder))
    assert torch.equal(tied.parts[0], untied.parts[0])


def test_an_embedding_that_was_left_random_is_refused(tmp_path):
    encoder = tiny.text_encoder()
    check_tied(tmp_path, encoder)
    encoder.encoder.embed_tokens = torch.nn.Embedding(len(tiny.WORDS), tiny.TEXT_DIM)
    assert isinstance(encoder, UMT5EncoderModel)
    with pytest.raises(ValueError, match="pip install -U 'transformers>=5.3'"):
        check_tied(tmp_path, encoder)
