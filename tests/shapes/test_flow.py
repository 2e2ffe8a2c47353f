"""The transformers' loss: noise levels, the pixels' metric, captions."""

import torch

from kvlock.shapes import checkpoint
from kvlock.shapes.training.flow import draw_batch, encode_text, flow_loss, pixel_metric
from kvlock.shapes.training.latents import BUCKETS


def _latents(clips=3):
    generator = torch.Generator().manual_seed(0)
    rows = {}
    for bucket in BUCKETS:
        size = bucket.latent_size
        target = torch.randn(clips, 16, *size, generator=generator).half()
        packed = torch.randint(0, 256, (clips, 8, *size), generator=generator, dtype=torch.uint8)
        objects = torch.rand(clips, *size, generator=generator) > 0.8
        rows[bucket.name] = dict(target=target, inactive=target / 2, mask=packed, objects=objects)
    return rows


def _small_vae():
    torch.manual_seed(0)
    vae = checkpoint.build_vae().eval()
    checkpoint.set_latent_statistics(vae, torch.randn(4, 16, 3, 4, 4))
    return vae


def test_a_draw_depends_on_its_step_alone_and_visits_every_bucket():
    rows, mean, std = _latents(), torch.zeros(1), torch.ones(1)
    draws = [draw_batch(step, rows, mean, std, 3.0) for step in range(60)]
    assert {d.bucket.name for d in draws} == {b.name for b in BUCKETS}
    again = draw_batch(7, rows, mean, std, 3.0)
    assert torch.equal(again.noisy, draws[7].noisy) and torch.equal(again.keep, draws[7].keep)
    assert all(len(d.sigma) == d.bucket.batch for d in draws)


def test_noise_levels_are_spread_over_the_batch_and_shifted():
    rows, mean, std = _latents(), torch.zeros(1), torch.ones(1)
    for shift in (1.0, 5.0):
        for step in range(10):
            draw = draw_batch(step, rows, mean, std, shift)
            u = draw.sigma / (shift - (shift - 1) * draw.sigma)
            count = len(u)
            assert torch.equal((u * count + 1e-4).floor().clamp(max=count - 1), torch.arange(count))
        level = draw.sigma.view(-1, 1, 1, 1, 1)
        assert torch.allclose(draw.noisy, (1 - level) * draw.clean + level * draw.noise)


def test_the_metric_weighs_channels_as_their_errors_show_in_pixels():
    vae, generator = _small_vae(), torch.Generator().manual_seed(1)
    spread = [4.0 if channel == 5 else 1.0 for channel in range(16)]
    vae.register_to_config(latents_mean=[0.0] * 16, latents_std=spread)
    latents = torch.randn(2, 16, 3, 4, 4, generator=generator)
    metric = pixel_metric(vae, latents)
    assert torch.allclose(metric, metric.T, atol=1e-5) and abs(metric.trace() - 16) < 1e-3
    assert torch.linalg.eigvalsh(metric).min() > 0.15
    others = torch.cat([metric.diagonal()[:5], metric.diagonal()[6:]])
    assert 4 < metric[5, 5] / others.mean() < 16


def test_a_dropped_caption_is_the_empty_one_and_padding_is_zero():
    torch.manual_seed(0)
    encoder = checkpoint.build_text_encoder().eval()
    tokenizer = checkpoint.build_tokenizer()
    padding = dict(padding="max_length", max_length=16, return_tensors="pt")
    tokens = tokenizer(["a red star", "a blue circle", ""], **padding).input_ids
    dropped = encode_text(encoder, tokens, torch.tensor([True, False, True]), 64)
    kept = encode_text(encoder, tokens, torch.ones(3, dtype=torch.bool), 64)
    assert torch.equal(dropped[0], kept[0]) and not torch.equal(dropped[1], kept[1])
    assert torch.allclose(dropped[1], kept[2]) and dropped.shape == (3, 64, checkpoint.TEXT_DIM)
    assert (kept[0, 4:] == 0).all() and (kept[0, :4] != 0).any()


def test_both_losses_have_gradients_for_every_weight_and_leave_the_text_encoder():
    vae, rows = _small_vae(), _latents()
    torch.manual_seed(0)
    text = checkpoint.build_text_encoder()
    for model, name in (
        (checkpoint.build_vace(), "vace"),
        (checkpoint.build_text_to_video(), "t2v"),
    ):
        losses = flow_loss(model, text, vae, rows, "cpu")(1)
        assert set(losses) == {"loss", name}
        losses["loss"].backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert all(p.grad is None for p in text.parameters())
