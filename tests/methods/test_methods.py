"""The baselines, on tiny random Wan and Wan-VACE, against loops written from their papers."""

import pytest
import reference
import torch
from kvlock.core.inversion import inverted_path
from kvlock.core.rows import prepare_rows
from kvlock.methods.table import CALIBRATED, METHODS, config_class, method_config
from test_edit import BACKBONES, STEPS, TEXT_LENGTH, make_request

from kvlock.core.clips import prepare_clips
from kvlock.core.config import KVLockConfig
from kvlock.editing import edit_clips

OMEGA = 5.0


@pytest.fixture(params=BACKBONES)
def backbone(request):
    cls, pipe = BACKBONES[request.param]
    return cls(pipe(), TEXT_LENGTH)


class World:
    """What a paper's loop needs of a backbone, for one clip."""

    def __init__(self, backbone, request, steps=STEPS):
        self.backbone = backbone
        self.sampler = backbone.sampler(steps, multistep=False)
        with torch.no_grad():
            self.clean = backbone.encode_video(request.video[None])
            self.condition = backbone.condition(request.video[None], request.mask[None])
        self.noise = self.draw(torch.Generator().manual_seed(request.seed))
        coarse = reference.latent_mask(request.mask, backbone.vae_stride)
        self.inside = coarse.float()

    def draw(self, generator):
        return torch.randn(self.clean.shape[1:], generator=generator)[None]

    @torch.no_grad()
    def velocity(self, latents, step, prompt):
        embeds = self.backbone.encode_prompt([prompt])
        return self.backbone.predict(
            latents, self.sampler.timestep(step)[None], embeds, self.condition
        )

    def guided(self, latents, step, prompt, omega):
        cond, uncond = self.velocity(latents, step, prompt), self.velocity(latents, step, "")
        return uncond + omega * (cond - uncond)


def _latents(backbone, request, method, **fields):
    """The final latents, before the decoder rounds them to bytes."""
    kept = {}
    decode = backbone.decode_video
    backbone.decode_video = lambda latents: (
        kept.setdefault("latents", latents) is None or decode(latents)
    )
    try:
        edit_clips(
            backbone, [request], method_config(method, {}, dict(num_inference_steps=STEPS) | fields)
        )
    finally:
        del backbone.decode_video
    return kept["latents"]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_edits_two_clips_as_it_edits_each(backbone, method):
    requests = [make_request(0), make_request(1)]
    fields = dict(threshold=0.02) if config_class(method) is KVLockConfig else {}
    fields |= dict(usual=((0.0, 1.0),)) if method in CALIBRATED else {}
    settings = method_config(method, {}, dict(num_inference_steps=STEPS) | fields)
    steps = []
    together = edit_clips(backbone, requests, settings, steps.append)
    alone = edit_clips(backbone, requests[1:], settings)[0]
    assert len(together[1].trace) == len(steps) == STEPS - settings.first_step
    difference = (together[1].video.int() - alone.video.int()).abs()
    assert difference.max() <= 1 and (difference > 0).float().mean() < 0.01


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("guidance_scale", [1.0, OMEGA])
def test_flowedit(backbone, masked, guidance_scale):
    request = make_request()
    world = World(backbone, request)
    method = "flowedit-masked" if masked else "flowedit"
    generator = torch.Generator().manual_seed(request.seed)
    noises = {step: world.draw(generator) for step in range(1, STEPS)}  # 0.82 of 6 steps are 5
    scales = (guidance_scale, 2.4 * guidance_scale) if guidance_scale > 1 else (1.0, 1.0)

    def v_source(latents, step):
        return world.guided(latents, step, request.source_prompt, scales[0])

    def v_target(latents, step):
        return world.guided(latents, step, request.prompt, scales[1])

    inside = world.inside if masked else None
    expected = reference.flowedit(
        v_source, v_target, world.clean, noises, world.sampler.sigmas, inside
    )
    result = _latents(backbone, request, method, guidance_scale=guidance_scale)
    torch.testing.assert_close(result, expected, atol=2e-4, rtol=1e-4)
    if masked:
        outside = (world.inside == 0).expand_as(world.clean[0])
        assert torch.equal(result[0][outside], world.clean[0][outside])


def test_flowedit_averages_its_noises(backbone):
    request = make_request()
    world = World(backbone, request, steps=1)
    generator = torch.Generator().manual_seed(request.seed)
    moves = []
    for _ in range(3):
        noise = {0: world.draw(generator)}

        def v_source(latents, step):
            return world.guided(latents, step, request.source_prompt, OMEGA)

        def v_target(latents, step):
            return world.guided(latents, step, request.prompt, 2.4 * OMEGA)

        moves.append(
            reference.flowedit(v_source, v_target, world.clean, noise, world.sampler.sigmas)
            - world.clean
        )
    result = _latents(backbone, request, "flowedit", num_inference_steps=1, num_noises=3)
    torch.testing.assert_close(result, world.clean + sum(moves) / 3, atol=2e-4, rtol=1e-4)


@torch.no_grad()
def test_inversion(backbone):
    request = make_request()
    world = World(backbone, request)
    levels = world.sampler.sigmas

    def velocity(latents, sigma):
        return world.velocity(latents, levels.index(sigma), request.source_prompt)

    slow = reference.uni_inv(velocity, world.clean, levels)
    config = KVLockConfig(num_inference_steps=STEPS)
    rows = prepare_rows(
        backbone, world.sampler, [request], prepare_clips(backbone, [request]), config
    )
    path = inverted_path(rows, world.sampler, world.clean, STEPS)
    assert len(path) == len(slow) == STEPS + 1 and torch.equal(path[-1], world.clean)
    torch.testing.assert_close(torch.cat(path), torch.cat(slow), atol=1e-5, rtol=1e-5)


def test_proedit(backbone):
    """From the inverted and shifted start; K and V from the source in the first third, a tenth of them inside."""
    request = make_request()
    world = World(backbone, request)
    levels = world.sampler.sigmas
    path = reference.uni_inv(
        lambda z, sigma: world.velocity(z, levels.index(sigma), request.source_prompt),
        world.clean,
        levels,
    )
    inside = world.inside.bool()
    latents = reference.shifted(path[0][0], world.noise[0], inside, 0.25)[None]
    tokens = reference.token_mask(inside, backbone.patch_size)
    solver = backbone.sampler(STEPS, multistep=True)
    for step in range(STEPS):
        if step < 2:  # a third of 6
            velocities = [
                _mixed(world, path[step], latents, step, p, request, tokens)
                for p in (request.prompt, "")
            ]
        else:
            velocities = [world.velocity(latents, step, p) for p in (request.prompt, "")]
        latents = solver.step(
            latents, velocities[1] + OMEGA * (velocities[0] - velocities[1]), step
        )
    result = _latents(backbone, request, "proedit", rows="sequential")
    torch.testing.assert_close(result, latents, atol=1e-3, rtol=1e-3)
    batched = _latents(backbone, request, "proedit", rows="batched")
    torch.testing.assert_close(batched, latents, atol=1e-3, rtol=1e-3)


def _mixed(world, source, latents, step, prompt, request, inside):
    """K = 0.9 K_new + 0.1 K_src on foreground tokens, K_src on the others, V the same; by plain forward hooks."""
    trunk = [s.module for s in world.backbone.attention_sites() if not s.control]
    modules = [m for attention in trunk for m in (attention.norm_k, attention.to_v)]
    kept, hooks = {}, []
    for module in modules:
        hooks.append(module.register_forward_hook(lambda m, _, out: kept.__setitem__(m, out)))
    world.velocity(source, step, request.source_prompt)
    for hook in hooks:
        hook.remove()

    def mix(module, _, new):
        old = kept[module]
        return torch.where(inside[None, :, None], 0.9 * new + 0.1 * old, old)

    hooks = [module.register_forward_hook(mix) for module in modules]
    velocity = world.velocity(latents, step, prompt)
    for hook in hooks:
        hook.remove()
    return velocity


def test_cfg_zero_star_zeroes_the_first_steps_and_projects(backbone):
    request = make_request()
    world, solver = World(backbone, request), backbone.sampler(STEPS, multistep=True)
    latents = world.noise
    for step in range(STEPS):
        cond, uncond = (world.velocity(latents, step, p) for p in (request.prompt, ""))
        scale = reference.optimal_scale(cond[0], uncond[0])
        velocity = (
            reference.guided(cond, uncond, OMEGA, scale) if step >= 2 else torch.zeros_like(cond)
        )
        latents = solver.step(latents, velocity, step)
    result = _latents(backbone, request, "cfg-zero-star", zero_init_steps=2, rows="sequential")
    torch.testing.assert_close(result, latents, atol=1e-3, rtol=1e-3)
    config = method_config("cfg-zero-star", {}, {})
    assert config.count(config.zero_init_steps) == 2  # the authors' code: steps 0 and 1 of 50
    few = method_config("cfg-zero-star", {}, {"num_inference_steps": 6})
    assert few.count(few.zero_init_steps) == 1


def test_apg_works_on_denoised_predictions(backbone):
    request = make_request()
    world, solver = World(backbone, request), backbone.sampler(STEPS, multistep=True)
    latents, average = world.noise, None
    for step in range(STEPS):
        sigma = world.sampler.sigmas[step]
        cond, uncond = (
            latents - sigma * world.velocity(latents, step, p) for p in (request.prompt, "")
        )
        denoised, average = reference.projected(cond[0], uncond[0], OMEGA, average)
        latents = solver.step(latents, (latents - denoised[None].float()) / sigma, step)
    result = _latents(backbone, request, "apg", rows="sequential")
    torch.testing.assert_close(result, latents, atol=1e-3, rtol=1e-3)


def test_sdedit_starts_from_the_noised_source(backbone):
    request = make_request()
    world, solver = World(backbone, request), backbone.sampler(STEPS, multistep=True)
    first = 1  # 0.8 of 6 steps are 5
    sigma = world.sampler.sigmas[first]
    latents = (1 - sigma) * world.clean + sigma * world.noise
    for step in range(first, STEPS):
        latents = solver.step(latents, world.guided(latents, step, request.prompt, OMEGA), step)
    result = _latents(backbone, request, "sdedit", rows="sequential")
    torch.testing.assert_close(result, latents, atol=1e-4, rtol=1e-4)


def test_latent_blend_puts_the_noised_source_back(backbone):
    request = make_request()
    world = World(backbone, request)
    latents = world.noise
    for step in range(STEPS):
        sigma, following = world.sampler.sigmas[step], world.sampler.sigmas[step + 1]
        latents = latents + (following - sigma) * world.guided(latents, step, request.prompt, OMEGA)
        source = (1 - following) * world.clean + following * world.noise
        latents = world.inside * latents + (1 - world.inside) * source
    result = _latents(backbone, request, "latent-blend", rows="sequential")
    torch.testing.assert_close(result, latents, atol=1e-4, rtol=1e-4)


def test_the_vace_row_is_plain_sampling():
    assert method_config("vace", {}, {}) == method_config("plain", {}, {})


def test_the_inside_of_the_mask_is_mixed_in_both_ways_of_running(backbone):
    request = make_request()
    fields = dict(fusion_ratio=0.3, foreground_ratio=0.2, lock_steps=1.0)
    first, second = (
        _latents(backbone, request, "kv-lock", rows=r, **fields) for r in ("batched", "sequential")
    )
    torch.testing.assert_close(first, second, atol=1e-4, rtol=0)
    without = _latents(
        backbone, request, "kv-lock", rows="batched", fusion_ratio=0.3, lock_steps=1.0
    )
    assert (first - without).abs().max() > 1e-4
