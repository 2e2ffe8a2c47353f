"""`kvlock bench score`: metrics by networks, put beside a run's results; tiny random networks of
the real classes.
"""

import pytest
from safetensors.torch import save_file

from kvlock.bench.rows import read_rows
from kvlock.cli import main
from kvlock.methods.catalogue import COMPOSITE
from support import tiny
from support.networks import clip_model, dino, lpips_state, randn


@pytest.fixture(scope="module")
def lpips_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("lpips") / "lpips.safetensors"
    save_file(lpips_state(), path)
    return path


def test_a_folder_is_scored_by_what_is_there_and_the_rest_is_named(
    results, lpips_file, tmp_path, capsys
):
    dino().save_pretrained(tmp_path / "dino")
    clip_model().save_pretrained(tmp_path / "clip")
    tiny.tokenizer().save_pretrained(tmp_path / "clip")
    save_file({"weight": randn(1, 12), "bias": randn(1)}, tmp_path / "head.safetensors")
    words = [
        "bench",
        "score",
        str(results),
        "--dino",
        str(tmp_path / "dino"),
        "--clip-l14",
        str(tmp_path / "clip"),
    ]
    assert main([*words, "--aesthetic-head", str(tmp_path / "head.safetensors")]) == 0
    said = capsys.readouterr().out
    assert (
        "openai/clip-vit-base-patch32 is not there" in said
        and "--lpips" in said
        and "subject" not in said
    )
    rows = {r.method: r.values for r in read_rows(results)}
    once = {name: dict(values) for name, values in rows["plain"].items()}
    assert {"subject_consistency", "clip_text", "clip_text_region", "aesthetic_quality"} <= set(
        once
    )
    assert not {"lpips_background", "background_consistency", "vbench_mean"} & set(once)
    assert rows["plain"]["clip_text"] != rows["plain" + COMPOSITE]["clip_text"]
    assert main(["bench", "score", str(results), "--lpips", str(lpips_file)]) == 0
    rows = {r.method: r.values for r in read_rows(results)}
    assert once.items() <= rows["plain"].items()
    (background,), (pasted,) = (
        rows["plain" + s]["lpips_background"].values() for s in ("", COMPOSITE)
    )
    assert pasted < background
    capsys.readouterr()
    assert main(["bench", "table", str(results), "--report-clips", "0"]) == 0
    assert "LPIPS background ↓" in (results / "table.md").read_text()


def test_without_any_network_nothing_is_scored(results, tmp_path, capsys):
    (tmp_path / "head.safetensors").write_text("no")
    assert (
        main(
            ["bench", "score", str(results), "--aesthetic-head", str(tmp_path / "head.safetensors")]
        )
        == 2
    )
    said = capsys.readouterr().err
    assert (
        "no network is there" in said
        and "is no linear head" in said
        and "facebook/dino-vitb16 is not th" in said
    )
    assert (
        main(["bench", "score", str(tmp_path)]) == 2
        and "holds no results" in capsys.readouterr().err
    )
    assert main(["bench", "score", str(results), "--lpips", "nowhere"]) == 2
    assert "nowhere: no such file" in capsys.readouterr().err


def test_networks_that_are_others_are_refused(results, lpips_file, tmp_path, capsys):
    dino().save_pretrained(tmp_path / "dino")
    clip_model().save_pretrained(tmp_path / "clip")
    tiny.tokenizer().save_pretrained(tmp_path / "clip")
    clip_model().save_pretrained(tmp_path / "wordless")
    save_file({"weight": randn(1, 9), "bias": randn(1)}, tmp_path / "head.safetensors")
    words = [
        "bench",
        "score",
        str(results),
        "--lpips",
        str(lpips_file),
        "--dino",
        str(tmp_path / "clip"),
    ]
    words += [
        "--clip-b32",
        str(tmp_path / "dino"),
        "--aesthetic-head",
        str(tmp_path / "head.safetensors"),
    ]
    assert main([*words, "--clip-l14", str(tmp_path / "clip")]) == 0
    said = capsys.readouterr().out
    assert "is no ViTModel: it lacks" in said and "is no CLIPModel: it lacks" in said
    assert "takes 9 features" in said and "gives 12" in said
    assert main([*words, "--clip-l14", str(tmp_path / "wordless")]) == 0
    said = capsys.readouterr().out
    assert "for a network of 8" in said and "head needs the network" in said
