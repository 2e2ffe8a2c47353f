"""A model folder's files, read before any library reads them."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from kvlock.backbones.loading import load_backbone
from kvlock.backbones.model_files import check_safetensors
from kvlock.cost.skeleton import skeleton
from support import tiny


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "vace"
    tiny.vace_pipe().save_pretrained(folder)
    return folder


@pytest.fixture
def broken(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


def _rewrite(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize("read", [load_backbone, skeleton])
@pytest.mark.parametrize(
    "part, field, value, expected",
    [
        ("transformer", "num_layers", "3", "'3'; expected a whole number"),
        ("transformer", "patch_size", 2, "2; expected a list"),
        ("transformer", "vace_layers", [0, None], "None; expected a whole number"),
        ("transformer", "cross_attn_norm", "yes", "'yes'; expected true or false"),
        ("vae", "latents_mean", {}, "{}; expected a list"),
        ("vae", "dim_mult", [1, "2"], "'2'; expected a whole number"),
    ],
)
def test_a_field_of_another_type_is_named_before_anything_loads(
    broken, read, part, field, value, expected
):
    path = broken / part / "config.json"
    _rewrite(path, **{field: value})
    with pytest.raises(ValueError) as error:
        read(str(broken))
    said = str(error.value)
    assert said.startswith(f"{path}: {field}") and expected in said and "\n" not in said


@pytest.mark.parametrize(
    "name", ["text_encoder/config.json", "scheduler/scheduler_config.json", "vae/config.json"]
)
@pytest.mark.parametrize("content", ["", "[1]", "{", "missing"])
def test_a_config_that_is_none_is_named(broken, name, content):
    path = broken / name
    path.unlink() if content == "missing" else path.write_text(content)
    with pytest.raises(ValueError, match="download it again") as error:
        load_backbone(str(broken))
    assert path.parent.name in str(error.value) and str(broken) in str(error.value)


@pytest.mark.parametrize(
    "name, fields",
    [
        ("text_encoder/config.json", {"num_layers": "two"}),
        ("text_encoder/config.json", {"num_heads": 0}),
        ("transformer/config.json", {"num_attention_heads": 0}),
        ("scheduler/scheduler_config.json", {"solver_order": "two"}),
    ],
)
def test_a_config_that_makes_no_sense_is_one_sentence(broken, name, fields):
    _rewrite(broken / name, **fields)
    with pytest.raises(ValueError) as error:
        load_backbone(str(broken))
    said = str(error.value)
    assert str(broken) in said and "\n" not in said and "Error" not in said


def test_a_tokenizer_that_cannot_pad_or_knows_more_words_is_named(broken):
    config = broken / "tokenizer" / "tokenizer_config.json"
    kept = config.read_text()
    config.write_text("{}")
    with pytest.raises(ValueError, match="names no pad_token, which prompts need"):
        load_backbone(str(broken))
    config.write_text(kept)
    tokenizer = broken / "tokenizer" / "tokenizer.json"
    words = json.loads(tokenizer.read_text())
    words["model"]["vocab"] |= {f"word{i}": 100 + i for i in range(100)}
    tokenizer.write_text(json.dumps(words))
    with pytest.raises(ValueError, match="words, its text encoder 8; download both again"):
        load_backbone(str(broken))


def test_every_cut_of_a_safetensors_file_is_seen_by_its_header_alone(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(3, 5), "b": torch.zeros(2)}, path, metadata={"format": "pt"})
    data = path.read_bytes()
    check_safetensors(path)
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=f"{path}.*download it again$"):
            check_safetensors(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(ValueError, match="its header says"):
        check_safetensors(path)
