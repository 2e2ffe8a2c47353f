"""`kvlock models`: the table, one model, and one model as a folder of its own."""

import pytest
from diffusers import WanPipeline

from kvlock.cli import main


def test_one_model_is_explained(capsys):
    assert main(["models", "shapes-t2v"]) == 0
    said = capsys.readouterr().out
    assert "WanPipeline" in said and "guidance_scale=3.0" in said


def test_a_built_in_model_becomes_a_folder_that_diffusers_loads(tmp_path, capsys):
    out = tmp_path / "toy"
    assert main(["models", "export", "shapes-t2v", str(out)]) == 0
    assert capsys.readouterr().out.strip() == f"written: {out}"
    assert WanPipeline.from_pretrained(out, local_files_only=True).vae.config.z_dim == 16
    assert main(["models", "export", "shapes-t2v", str(out)]) == 2


@pytest.mark.parametrize("words", [["export"], ["export", "shapes"], ["shapes", "shapes-t2v"]])
def test_other_words_are_a_sentence(words, capsys):
    assert main(["models", *words]) == 2
    assert "expected nothing, NAME, or export NAME DIR" in capsys.readouterr().err
