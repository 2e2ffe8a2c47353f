"""LPIPS against its paper written out, on random weights."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kvlock.metrics.lpips import load_lpips, lpips_background, lpips_maps
from support.networks import ALEXNET_PLACES, lpips_state, random_clip

STATE = lpips_state()


@pytest.fixture(scope="module")
def lpips_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("lpips") / "lpips.safetensors"
    save_file(STATE, path)
    return path


def _alexnet() -> nn.Sequential:
    layers = [nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)]
    layers += [nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)]
    for before, after in ((192, 384), (384, 256), (256, 256)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
    network = nn.Sequential(*layers)
    for i, place in enumerate(ALEXNET_PLACES):
        network[place].weight.data = STATE[f"net.slice{i + 1}.{place}.weight"]
        network[place].bias.data = STATE[f"net.slice{i + 1}.{place}.bias"]
    return network


def _layers_of(network: nn.Sequential, image: np.ndarray) -> list[np.ndarray]:
    x = torch.from_numpy(image / 127.5 - 1).float()
    x = (x - torch.tensor([-0.030, -0.088, -0.188])) / torch.tensor([0.458, 0.448, 0.450])
    x, found = x.permute(2, 0, 1)[None], []
    for index, layer in enumerate(network):
        x = layer(x)
        if index - 1 in ALEXNET_PLACES:
            found.append(x[0].detach().numpy())
    return found


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


def test_lpips_against_the_paper_written_out(lpips_file):
    first, second = random_clip(1), random_clip(1, seed=1)
    network, expected = _alexnet(), np.zeros(first.shape[1:3])
    layers = [_layers_of(network, clip[0].numpy()) for clip in (first, second)]
    for i, (a, b) in enumerate(zip(*layers)):
        weight, layer = STATE[f"lin{i}.model.1.weight"].flatten().numpy(), np.zeros(a.shape[1:])
        for y, x in np.ndindex(layer.shape):
            unit = [v[:, y, x] / (np.linalg.norm(v[:, y, x]) + 1e-10) for v in (a, b)]
            layer[y, x] = weight @ (unit[0] - unit[1]) ** 2
        expected += _bilinear(layer, first.shape[1:3])
    (found,) = lpips_maps(load_lpips(lpips_file), first, second)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3, atol=1e-5)


def test_lpips_of_the_background_alone(lpips_file):
    model, source = load_lpips(lpips_file), random_clip()
    edited, mask = random_clip(seed=1), torch.zeros(3, 40, 48, dtype=torch.bool)
    mask[0, :20], mask[2] = True, True
    maps = lpips_maps(model, source, edited)
    slow = np.mean([float(maps[0][20:].mean()), float(maps[1].mean())])
    assert lpips_background(model, source, edited, mask) == pytest.approx(slow)
    assert lpips_background(model, source, source, mask) == 0
    assert np.isnan(lpips_background(model, source, edited, torch.ones_like(mask)))
    assert np.isnan(lpips_background(model, source[:, :30], edited[:, :30], mask[:, :30]))


def test_other_weights_are_no_lpips(tmp_path):
    less = {k: v for k, v in STATE.items() if k != "lin3.model.1.weight"}
    (tmp_path / "text.safetensors").write_text("no")
    save_file(less, tmp_path / "less.safetensors")
    save_file(
        STATE | {"lin3.model.1.weight": torch.ones(1, 5, 1, 1)}, tmp_path / "shape.safetensors"
    )
    refusals = {"text": "cannot be read", "less": r"no weights\.3", "shape": "not LPIPS"}
    for name, message in refusals.items():
        with pytest.raises(ValueError, match=message):
            load_lpips(tmp_path / f"{name}.safetensors")
