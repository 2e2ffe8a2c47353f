"""Metrics by networks: their arithmetic on tiny random networks of the real classes, and the folder's round trip."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPConfig, CLIPModel, ViTConfig, ViTModel

import tiny
from kvlock.bench.table import read_rows
from kvlock.cli import main
from kvlock.methods.table import COMPOSITE
from kvlock.metrics import vision
from kvlock.metrics.lpips import load_lpips, lpips_background, lpips_maps

PLACES = (0, 3, 6, 8, 10)  # of the convolutions in torchvision's alexnet().features


def _randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _clip(frames=3, height=40, width=48, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def lpips_file(tmp_path_factory):
    """Random weights under the names that the lpips package's state has, its duplicates among them."""
    sizes = [(3, 64, 11), (64, 192, 5), (192, 384, 3), (384, 256, 3), (256, 256, 3)]
    state = {}
    for i, (place, (before, after, side)) in enumerate(zip(PLACES, sizes)):
        state[f"net.slice{i + 1}.{place}.weight"] = (
            _randn(after, before, side, side, seed=i) / (before * side**2) ** 0.5
        )
        state[f"net.slice{i + 1}.{place}.bias"] = _randn(after, seed=10 + i)
        state[f"lin{i}.model.1.weight"] = _randn(1, after, 1, 1, seed=20 + i).abs()
    state["scaling_layer.shift"] = torch.zeros(1, 3, 1, 1)
    path = tmp_path_factory.mktemp("lpips") / "lpips.safetensors"
    save_file(state, path)
    return path, state


def test_lpips_against_the_paper_written_out(lpips_file):
    path, state = lpips_file
    first, second = _clip(1)[0], _clip(1, seed=1)[0]
    layers = [nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU()]
    layers += [nn.MaxPool2d(3, 2), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 256, 3, padding=1)]
    alexnet = nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(256, 256, 3, padding=1), nn.ReLU())
    for i, place in enumerate(PLACES):
        alexnet[place].weight.data = state[f"net.slice{i + 1}.{place}.weight"]
        alexnet[place].bias.data = state[f"net.slice{i + 1}.{place}.bias"]

    def layers_of(image):
        x = torch.from_numpy(image / 127.5 - 1).float()
        x = (x - torch.tensor([-0.030, -0.088, -0.188])) / torch.tensor([0.458, 0.448, 0.450])
        x, found = x.permute(2, 0, 1)[None], []
        for index, layer in enumerate(alexnet):
            x = layer(x)
            if index - 1 in PLACES:
                found.append(x[0].detach().numpy())
        return found

    expected = np.zeros(first.shape[:2])
    for i, (a, b) in enumerate(zip(layers_of(first), layers_of(second))):
        weight, layer = state[f"lin{i}.model.1.weight"].flatten().numpy(), np.zeros(a.shape[1:])
        for y, x in np.ndindex(layer.shape):
            unit = [v[:, y, x] / (np.linalg.norm(v[:, y, x]) + 1e-10) for v in (a, b)]
            layer[y, x] = weight @ (unit[0] - unit[1]) ** 2
        expected += _bilinear(layer, first.shape[:2])
    found = lpips_maps(load_lpips(path), first[None], second[None])[0]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def _bilinear(layer, size):
    """Pixel centres at half integers, edges held."""
    wide = np.empty(size)
    for y, x in np.ndindex(*size):
        ys, xs = ((i + 0.5) * n / m - 0.5 for i, n, m in zip((y, x), layer.shape, size))
        y0, x0 = (min(max(int(np.floor(v)), 0), n - 1) for v, n in zip((ys, xs), layer.shape))
        y1, x1 = (min(v + 1, n - 1) for v, n in zip((y0, x0), layer.shape))
        fy, fx = max(ys - y0, 0), max(xs - x0, 0)
        top, bottom = (layer[row, x0] * (1 - fx) + layer[row, x1] * fx for row in (y0, y1))
        wide[y, x] = top * (1 - fy) + bottom * fy
    return wide


def test_lpips_of_the_background_alone(lpips_file):
    model, source = load_lpips(lpips_file[0]), _clip()
    edited, mask = _clip(seed=1), np.zeros((3, 40, 48), bool)
    mask[0, :20], mask[2] = True, True
    maps = lpips_maps(model, source, edited)
    slow = np.mean([maps[0][20:].mean(), maps[1].mean()])
    assert lpips_background(model, source, edited, mask) == pytest.approx(slow)
    assert lpips_background(model, source, source, mask) == 0
    assert np.isnan(lpips_background(model, source, edited, np.ones_like(mask)))
    assert np.isnan(lpips_background(model, source[:, :30], edited[:, :30], mask[:, :30]))


def test_other_weights_are_no_lpips(lpips_file, tmp_path):
    _, state = lpips_file
    (tmp_path / "text.safetensors").write_text("no")
    save_file({k: v for k, v in state.items() if k != "lin3.model.1.weight"}, tmp_path / "less.safetensors")
    save_file(state | {"lin3.model.1.weight": torch.ones(1, 5, 1, 1)}, tmp_path / "shape.safetensors")
    for name, message in {"text": "cannot be read", "less": r"no weights\.3", "shape": "not LPIPS"}.items():
        with pytest.raises(ValueError, match=message):
            load_lpips(tmp_path / f"{name}.safetensors")


def test_consistency_is_the_mean_over_later_frames():
    features = _randn(5, 7)
    unit = [f / f.norm() for f in features]
    slow = [(max(0, float(unit[t] @ unit[0])) + max(0, float(unit[t] @ unit[t - 1]))) / 2 for t in range(1, 5)]
    assert vision.frame_consistency(features) == pytest.approx(np.mean(slow), rel=1e-5)
    assert vision.frame_consistency(torch.ones(3, 4)) == pytest.approx(1)
    assert np.isnan(vision.frame_consistency(features[:1]))


def test_alignment_and_aesthetics():
    images, text = _randn(4, 6), _randn(1, 6, seed=1)
    slow = [100 * max(0.0, float(i @ text[0] / (i.norm() * text[0].norm()))) for i in images]
    assert vision.text_alignment(images, text) == pytest.approx(np.mean(slow), rel=1e-5)
    assert vision.text_alignment(text, text) == pytest.approx(100) and vision.text_alignment(-text, text) == 0
    head = nn.Linear(6, 1)
    slow = [(head.weight[0] @ (i / i.norm()) + head.bias[0]).item() / 10 for i in images]
    assert vision.aesthetic_quality(images, head) == pytest.approx(np.mean(slow), rel=1e-4)


def test_regions_are_the_masks_boxes():
    frames, mask = _clip(), np.zeros((3, 40, 48), bool)
    mask[0, 5, 7], mask[0, 9, 3], mask[2, 39, 47] = True, True, True
    crops = list(vision.mask_crops(frames, mask))
    assert len(crops) == 2
    assert np.array_equal(crops[0][0], frames[0, 5:10, 3:8]) and np.array_equal(crops[1][0], frames[2, 39:, 47:])


def _clip_model():
    torch.manual_seed(0)
    vision_config = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
    vision_config |= dict(image_size=32, patch_size=8)
    text_config = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, vocab_size=8)
    text_config |= dict(max_position_embeddings=6, eos_token_id=1, bos_token_id=0, pad_token_id=0)
    return CLIPModel(CLIPConfig(text_config=text_config, vision_config=vision_config, projection_dim=12)).eval()


def _dino():
    torch.manual_seed(0)
    config = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=32)
    return ViTModel(ViTConfig(patch_size=8, **config), add_pooling_layer=False).eval()


def test_what_the_networks_are_shown():
    """At the model's own size nothing is resized; wider frames are whole for DINO and their middle for CLIP."""
    clip_model, dino, frames = _clip_model(), _dino(), _clip(20, 32, 32)
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2) / 255
    shown = (pixels - torch.tensor(vision.CLIP_MEAN)[:, None, None]) / torch.tensor(vision.CLIP_STD)[:, None, None]
    expected = clip_model.visual_projection(clip_model.vision_model(shown).pooler_output)
    torch.testing.assert_close(vision.clip_features(clip_model, frames), expected, rtol=1e-4, atol=1e-5)
    shown = (pixels - torch.tensor(vision.DINO_MEAN)[:, None, None]) / torch.tensor(vision.DINO_STD)[:, None, None]
    expected = dino(shown).last_hidden_state[:, 0]
    torch.testing.assert_close(vision.dino_features(dino, frames), expected, rtol=1e-4, atol=1e-5)
    wide = np.concatenate([_clip(2, 32, 16, seed=1), frames[:2], _clip(2, 32, 16, seed=2)], axis=2)
    torch.testing.assert_close(vision.clip_features(clip_model, wide), vision.clip_features(clip_model, frames[:2]))
    assert not torch.allclose(vision.dino_features(dino, wide), vision.dino_features(dino, frames[:2]))


def test_text_is_read_as_far_as_the_model_can():
    model, words = _clip_model(), tiny.tokenizer()
    ids = torch.tensor([[3, 4, 6, 1]])  # a red cat </s>
    expected = model.text_projection(model.text_model(ids).pooler_output)
    torch.testing.assert_close(vision.text_features(model, words, "a red cat"), expected)
    assert vision.text_features(model, words, "a red cat a blue dog a red dog").shape == (1, 12)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scored")
    tiny.vace_pipe().save_pretrained(folder / "model")
    words = ["--methods", "plain", "--limit", "1", "--steps", "2", "--model", str(folder / "model")]
    assert main(["bench", "run", "shapes-validation", *words, "--out", str(folder / "out")]) == 0
    return folder / "out"


def test_a_folder_is_scored_by_what_is_there_and_the_rest_is_named(results, lpips_file, tmp_path, capsys):
    _dino().save_pretrained(tmp_path / "dino")
    _clip_model().save_pretrained(tmp_path / "clip")
    tiny.tokenizer().save_pretrained(tmp_path / "clip")
    save_file({"weight": _randn(1, 12), "bias": _randn(1)}, tmp_path / "head.safetensors")
    words = ["bench", "score", str(results), "--dino", str(tmp_path / "dino"), "--clip-l14", str(tmp_path / "clip")]
    assert main([*words, "--aesthetic-head", str(tmp_path / "head.safetensors")]) == 0
    told = capsys.readouterr().out
    assert "openai/clip-vit-base-patch32 is not there" in told and "--lpips" in told and "subject" not in told
    rows = {r.method: r.values for r in read_rows(results)}
    once = {name: dict(values) for name, values in rows["plain"].items()}
    assert {"subject_consistency", "clip_text", "clip_text_region", "aesthetic_quality"} <= set(once)
    assert not {"lpips_background", "background_consistency", "vbench_mean"} & set(once)
    assert rows["plain"]["clip_text"] != rows["plain" + COMPOSITE]["clip_text"]
    assert main(["bench", "score", str(results), "--lpips", str(lpips_file[0])]) == 0
    rows = {r.method: r.values for r in read_rows(results)}
    assert once.items() <= rows["plain"].items()
    (background,), (pasted,) = (rows["plain" + s]["lpips_background"].values() for s in ("", COMPOSITE))
    assert pasted < background
    capsys.readouterr()
    assert main(["bench", "table", str(results), "--report-clips", "0"]) == 0
    assert "LPIPS background ↓" in capsys.readouterr().out


def test_without_any_network_nothing_is_scored(results, tmp_path, capsys):
    (tmp_path / "head.safetensors").write_text("no")
    assert main(["bench", "score", str(results), "--aesthetic-head", str(tmp_path / "head.safetensors")]) == 2
    told = capsys.readouterr().err
    assert "no network is there" in told and "is no linear head" in told and "facebook/dino-vitb16 is not th" in told
    assert main(["bench", "score", str(tmp_path)]) == 2 and "holds no results" in capsys.readouterr().err
    assert main(["bench", "score", str(results), "--lpips", "nowhere"]) == 2
    assert "nowhere: no such file" in capsys.readouterr().err


def test_networks_that_are_others_are_refused(results, lpips_file, tmp_path, capsys):
    _dino().save_pretrained(tmp_path / "dino")
    _clip_model().save_pretrained(tmp_path / "clip")
    tiny.tokenizer().save_pretrained(tmp_path / "clip")
    _clip_model().save_pretrained(tmp_path / "wordless")
    save_file({"weight": _randn(1, 9), "bias": _randn(1)}, tmp_path / "head.safetensors")
    words = ["bench", "score", str(results), "--lpips", str(lpips_file[0]), "--dino", str(tmp_path / "clip")]
    words += ["--clip-b32", str(tmp_path / "dino"), "--aesthetic-head", str(tmp_path / "head.safetensors")]
    assert main([*words, "--clip-l14", str(tmp_path / "clip")]) == 0
    told = capsys.readouterr().out
    assert "is no ViTModel: it lacks" in told and "is no CLIPModel: it lacks" in told
    assert "takes 9 features" in told and "gives 12" in told
    assert main([*words, "--clip-l14", str(tmp_path / "wordless")]) == 0
    told = capsys.readouterr().out
    assert "for a network of 8" in told and "head needs the network" in told


def test_to_vbench_and_back(results, tmp_path, capsys):
    videos = tmp_path / "videos"
    assert main(["bench", "export-vbench", str(results), str(videos)]) == 0
    names = sorted(p.name for p in videos.iterdir())
    assert len(names) == 4 and sum(n.endswith(f"{COMPOSITE}.mp4") for n in names) == 2
    assert main(["bench", "export-vbench", str(results), str(videos)]) == 2
    scores = {n: 0.1 * (i + 1) for i, n in enumerate(names)}
    entries = [{"video_path": str(videos / n), "video_results": v} for n, v in scores.items()]
    told = {name: [0.5, entries] for name in ("subject_consistency", "background_consistency", "motion_smoothness")}
    told |= {"aesthetic_quality": [0.5, entries], "dynamic_degree": [0.5, entries]}
    percent = [e | {"video_results": 100 * e["video_results"]} for e in entries]
    file = tmp_path / "results_eval_results.json"
    file.write_text(json.dumps(told | {"imaging_quality": [0.5, percent]}))
    assert main(["bench", "import-vbench", str(results), str(file)]) == 0
    assert "4 of 4 clips: imaging_quality" in capsys.readouterr().out
    for row in read_rows(results):
        (own,) = (v for n, v in scores.items() if f".{row.method.removesuffix(COMPOSITE)}.s0" in n
                  and n.endswith(f"{COMPOSITE}.mp4") == row.method.endswith(COMPOSITE))  # fmt: skip
        (mean,) = row.values["vbench_mean"].values()
        assert mean == pytest.approx(own) and "dynamic_degree" not in row.values
    for text in ("[]", '{"subject_consistency": [1]}', '{"subject_consistency": [1, []]}'):
        file.write_text(text)
        assert main(["bench", "import-vbench", str(results), str(file)]) == 2
