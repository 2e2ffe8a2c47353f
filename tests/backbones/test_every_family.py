"""What must hold of every family, on tiny random pipelines of its real classes."""

import fnmatch
import re
from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from kvlock.backbones.families import FAMILIES, recognised_pipe
from kvlock.backbones.loading import load_backbone
from kvlock.contract.types import Control
from kvlock.core.config import KVLockConfig
from kvlock.core.mask import latent_foreground, token_foreground
from kvlock.core.schedule import plan_steps
from kvlock.editing.clips import edit
from kvlock.editing.edit import plan
from kvlock.editing.job import EditJob
from kvlock.media.clip import Clip
from kvlock.methods.catalogue import CALIBRATED, METHODS
from kvlock.methods.edit import edit_clips
from kvlock.methods.options import with_options
from kvlock.methods.refusals import refusal
from support.edits import BATCHED, SEQUENTIAL, branches_of, latents_of, watched
from support.pipes import PIPES
from support.tiny_family import TEXT_LENGTH

STEPS = 5
TOY = dict(num_inference_steps=STEPS, lock_steps=3, threshold=0.02, window=3)
FREE = dict(background_anchor="none")


@pytest.fixture(scope="module", params=PIPES, ids=lambda tiny: tiny.id)
def tiny(request):
    """One family."""
    return request.param


@pytest.fixture(scope="module")
def backbone(tiny):
    """Its tiny backbone, which no test leaves changed."""
    return _backbone(tiny)


def _backbone(tiny):
    pipe = tiny.pipe()
    return recognised_pipe(pipe).adapter_class()(pipe, TEXT_LENGTH)


def _config(method, **options):
    options = TOY | options | (dict(usual=((0.0, 1.0),)) if method in CALIBRATED else {})
    return with_options(METHODS[method], options)


def _steps(branches):
    return plan_steps(branches.config, branches.sampler.sigmas, branches.sampler.switch)


def test_every_row_is_tested():
    shipped = {row.name for row in FAMILIES if not row.name.startswith("shapes")}
    assert shipped == {tiny.row for tiny in PIPES}


def test_it_is_recognised_as_its_row(tiny, backbone):
    assert backbone.spec.name == tiny.row
    assert type(backbone.pipe).__name__ == backbone.spec.pipeline


def test_without_lock_it_is_the_stock_pipeline(tiny, backbone):
    request, plain = tiny.request(), _config("plain", **FREE)
    noise = branches_of(backbone, [request], plain).clips.start
    expected = tiny.stock(backbone.pipe, request, noise, plain)
    latents = latents_of(backbone, [request], plain, SEQUENTIAL)
    torch.testing.assert_close(latents, expected, atol=tiny.tolerance, rtol=0)
    assert (latents - noise).abs().max() > 0.1
    in_a_batch = latents_of(backbone, [request], plain, BATCHED)
    torch.testing.assert_close(in_a_batch, expected, atol=1e-4, rtol=1e-4)


def test_alpha_zero_is_plain_and_the_lock_is_not(tiny, backbone):
    request = tiny.request()
    plain = latents_of(backbone, [request], _config("plain", **FREE))
    calm = latents_of(backbone, [request], _config("kv-only", **FREE | dict(threshold=1e6)))
    torch.testing.assert_close(calm, plain, atol=2e-5, rtol=1e-5)
    locked = latents_of(backbone, [request], _config("rigid", **FREE))
    assert (locked - plain).abs().max() > 1e-3


@torch.no_grad()
def test_a_clip_locked_to_itself_is_the_identity(tiny, backbone):
    """With the source's own latents, prompt and condition, alpha = 1 changes nothing."""
    request = tiny.request(prompt="a dog", source="a dog")
    branches = branches_of(backbone, [request], _config("rigid", guidance_scale=1.0))
    clips, sampler = branches.clips, branches.sampler
    step = _steps(branches)[2]
    source = sampler.add_noise(clips.source, clips.noise, step.index)
    locked = branches.predict(step, source, source, Control(torch.ones(1), torch.ones(1)))[0]
    timestep = sampler.timestep(step.index)[None]
    plain = backbone.predict(source, timestep, clips.prompt, clips.condition)
    torch.testing.assert_close(locked, plain, atol=2e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("number", [2, STEPS - 1])
def test_a_locked_step_is_what_plain_hooks_make_of_it(tiny, backbone, number):
    """Hooks that keep the source's keys and values, then hooks that blend, token by token."""
    request, config, alpha = tiny.request(), _config("rigid"), 0.35
    branches = branches_of(backbone, [request], config)
    clips, sampler = branches.clips, branches.sampler
    step = _steps(branches)[number]
    source = sampler.add_noise(clips.source, clips.noise, number)
    control = Control(torch.tensor([alpha]), torch.tensor([5.0]))
    locked = branches.predict(step, clips.start, source, control)

    latent = latent_foreground(request.mask[None], backbone.vae_stride)
    background = ~token_foreground(latent, backbone.patch_size)[0]
    timestep = sampler.timestep(number)[None]
    kept = {}
    with _hooked(tiny, backbone, lambda name, tokens: kept.update({name: tokens.clone()})) as ran:
        backbone.predict(source, timestep, clips.source_prompt, clips.condition)
    sites = backbone.attention_sites(sampler.timestep(number))
    assert len(ran) == 2 * len([site for site in sites if not site.control])

    def blend(name, tokens):
        for token in background.nonzero()[:, 0]:
            tokens[:, token] = alpha * kept[name][:, token] + (1 - alpha) * tokens[:, token]

    for prompt, prediction in zip((clips.prompt, clips.negative_prompt), locked):
        with _hooked(tiny, backbone, blend):
            expected = backbone.predict(clips.start, timestep, prompt, clips.condition)
        torch.testing.assert_close(prediction, expected, atol=2e-5, rtol=1e-4)


class _hooked:
    """Hooks on the keys and values of the family's self-attention layers, by their names alone."""

    def __init__(self, tiny, backbone, run):
        self.tiny, self.run, self.handles, self.ran = tiny, run, [], []
        self.tokens = None
        self.modules = {
            f"{part}.{name}": module
            for part in backbone.spec.experts
            for name, module in getattr(backbone.pipe, part).named_modules()
        }

    def __enter__(self):
        for pattern in self.tiny.attention:
            for name in fnmatch.filter(self.modules, pattern):
                if name.count(".") != pattern.count("."):
                    continue
                for leaf, axis in (("norm_k", self.tiny.keys), ("to_v", 1)):
                    hook = self._hook(f"{name}.{leaf}", axis)
                    module = self.modules[f"{name}.{leaf}"]
                    self.handles.append(module.register_forward_hook(hook))
        return self.ran

    def __exit__(self, *error):
        for handle in self.handles:
            handle.remove()

    def _hook(self, name, axis):
        def hook(module, inputs, output):
            changed = output.clone()
            tokens = changed.movedim(axis, 1)
            if self.tiny.text == "before":
                tokens = tokens[:, TEXT_LENGTH:]
            self.ran.append(name)
            self.run(name, tokens)
            return changed

        return hook


def test_a_seeds_bytes_do_not_depend_on_the_batch(tiny, backbone):
    requests = [tiny.request(0), tiny.request(1, prompt="a blue dog")]
    settings = _config("kv-lock")
    results, together = watched(backbone, requests, settings)
    alone, latents = watched(backbone, requests[1:], settings)
    torch.testing.assert_close(together[1:], latents, atol=2e-4, rtol=1e-4)
    difference = (results[1].video.int() - alone[0].video.int()).abs()
    assert difference.max() <= 1 and (difference > 0).float().mean() < 0.01
    again = edit_clips(backbone, requests[1:], settings)[0]
    assert torch.equal(again.video, alone[0].video) and again.trace == alone[0].trace


def test_size_and_frame_count_come_back(tiny, backbone):
    request, (frames, height, width) = tiny.request(), tiny.size
    odd = replace(request, video=request.video[:-1, 1:, 3:], mask=request.mask[:-1, 1:, 3:])
    result = edit(backbone, odd, _config("kv-lock", num_inference_steps=2, lock_steps=1, window=2))
    assert result.video.shape == (frames - 1, height - 1, width - 3, 3)
    assert result.video.dtype == torch.uint8


def test_the_vae_gives_back_the_clips_shape_and_its_latents_are_normalised(tiny, backbone):
    video = tiny.request().video[None]
    with torch.no_grad():
        latents = backbone.encode_video(video)
        pipe_latents = backbone.denormalised(latents)
        assert backbone.decode_video(latents).shape == video.shape
    stride = backbone.vae_stride
    shape = (
        (tiny.size[0] - 1) // stride[0] + 1,
        *(s // n for s, n in zip(tiny.size[1:], stride[1:])),
    )
    assert tuple(latents.shape[2:]) == shape and latents.dtype == torch.float32
    torch.testing.assert_close(backbone.normalised(pipe_latents), latents, atol=1e-5, rtol=1e-5)


def test_processors_are_put_back_also_after_an_exception(tiny, backbone):
    sampler = backbone.sampler(STEPS, multistep=False)
    sites = [s for k in (0, STEPS - 1) for s in backbone.attention_sites(sampler.timestep(k))]
    before = [site.module.processor for site in sites]

    def stop(records):
        if records[0].step == STEPS - 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        edit_clips(backbone, [tiny.request()], _config("rigid"), on_step=stop)
    assert all(site.module.processor is p for site, p in zip(sites, before))


def _methods(tiny):
    """A sample of all methods, another for each family; together the families run every one."""
    mine = [m for i, m in enumerate(METHODS) if i % len(PIPES) == PIPES.index(tiny)]
    return [m for m in mine if m != "vace"]


@pytest.mark.parametrize(
    "tiny, method",
    [pytest.param(t, m, id=f"{t.id}-{m}") for t in PIPES for m in _methods(t)],
    indirect=["tiny"],
)
def test_a_sample_of_the_methods_runs_in_a_batch_and_branch_by_branch(tiny, backbone, method):
    settings, request = _config(method), tiny.request()
    reason = refusal(settings, backbone)
    if reason:
        with pytest.raises(ValueError, match=re.escape(reason)):
            edit_clips(backbone, [request], settings)
        assert tiny.refuses(settings)
        return
    assert not tiny.refuses(settings)
    batched = latents_of(backbone, [request], settings)
    assert torch.isfinite(batched).all()
    if isinstance(settings, KVLockConfig):
        sequential = latents_of(backbone, [request], settings, SEQUENTIAL)
        torch.testing.assert_close(batched, sequential, atol=2e-4, rtol=1e-3)


def test_a_saved_pipeline_is_loaded_as_its_family(tiny, backbone, tmp_path):
    backbone.pipe.save_pretrained(tmp_path / "model")
    loaded = load_backbone(str(tmp_path / "model"), max_sequence_length=TEXT_LENGTH)
    assert loaded.spec is not None and loaded.spec.name == tiny.row
    settings, request = _config("rigid", num_inference_steps=2, lock_steps=1), tiny.request()
    expected = latents_of(backbone, [request], settings)
    assert torch.equal(latents_of(loaded, [request], settings), expected)
    clip = Clip(request.video, Fraction(16), (), Fraction(1), tmp_path / "clip.mp4")
    job = EditJob(clip, request.mask, ("a red cat",), str(tmp_path / "model"), size="keep")
    planned = plan(job)
    assert planned.family.name == tiny.row and planned.fit.source == planned.fit.model == tiny.size
    assert planned.requests[0].fps == 16
    assert (planned.peak_bytes is not None) == planned.family.counted
