"""What is asked, before anything is read; and a whole edit from memory, without a file in sight."""

import json
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from kvlock.editing.edit import plan, run
from kvlock.editing.job import EditJob, job_from_dict, job_to_dict
from kvlock.editing.outputs import write
from kvlock.media.clip import Clip
from kvlock.methods.catalogue import METHODS
from kvlock.methods.execution import Execution
from support import tiny

CLIP = dict(clip="a.mp4", mask="b.png", prompts=("a red cat",), model="shapes")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("job") / "model"
    tiny.vace_pipe().save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(clip=" "), "clip is ' '; expected a path or a name"),
        (dict(prompts=()), "prompts is \\(\\); expected words"),
        (dict(prompts=("a", " ")), "expected words that describe"),
        (dict(prompts=(None,)), "expected words that describe"),
        (dict(fps=0), "fps is 0; expected above 0"),
        (dict(seeds=()), "seeds is \\(\\); expected one seed or more"),
        (dict(seeds=(0, -1)), "seed is -1; expected 0 to"),
        (dict(background_seed=2**63), "expected 0 to 2\\*\\*63 - 1"),
        (dict(method="kvlok"), "did you mean kv-lock?"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(change, message):
    with pytest.raises(ValueError, match=message):
        EditJob(**CLIP | change)


def test_every_prompt_meets_every_seed_and_they_share_the_first_background():
    job = EditJob(**CLIP | dict(prompts=("a", "b"), seeds=(3, 4)))
    assert job.variants == [("a", 3), ("a", 4), ("b", 3), ("b", 4)]
    assert job.first_background_seed == 3 and EditJob(**CLIP).first_background_seed is None
    assert EditJob(**CLIP | dict(background_seed=9)).first_background_seed == 9


@pytest.mark.parametrize("method", METHODS)
def test_a_job_comes_back_from_json(method):
    job = EditJob(**CLIP | dict(method=method, seeds=(1, 2), size=(48, 64)))
    execution = Execution("sequential", "host", "none", True, False)
    again = job_from_dict(json.loads(json.dumps(job_to_dict(job, METHODS[method], execution))))
    assert again.config == METHODS[method] and again.seeds == (1, 2) and again.size == (48, 64)
    assert Execution(**again.execution) == execution
    assert again.clip == str(Path("a.mp4").absolute()) and again.model == "shapes"


def test_an_edit_from_memory_leaves_the_background_alone(model, tmp_path):
    video = torch.randint(0, 256, (9, 48, 64, 3), dtype=torch.uint8)
    mask = torch.zeros(9, 48, 64, dtype=torch.bool)
    mask[:, 16:24, 16:24] = True
    clip = Clip(video, Fraction(8), tuple(range(9)), Fraction(1, 8), Path())
    steps = []
    planned = plan(EditJob(clip, mask, ("a red cat",), model, options={"num_inference_steps": 2}))
    assert planned.steps == 2 and not list(tmp_path.iterdir())
    edits = run(planned, steps.append)
    far = torch.ones_like(mask)
    far[:, 7:33, 7:33] = False
    assert torch.equal(edits.videos[0][far], video[far]) and len(steps) == 2
    assert not torch.equal(edits.videos[0][mask], video[mask])
    written = write(edits, tmp_path / "out")
    assert written.reports[0].psnr > written.reports[0].psnr_ceiling
    assert "job" not in json.loads((tmp_path / "out" / "run.json").read_text())


def test_a_plan_reads_and_refuses_but_loads_and_writes_nothing(model, tmp_path, monkeypatch):
    monkeypatch.setattr("kvlock.editing.edit.load_backbone", lambda *a, **k: pytest.fail("loaded"))
    video = torch.zeros(40, 32, 32, 3, dtype=torch.uint8)
    clip = Clip(video, Fraction(8), tuple(range(40)), Fraction(1, 8), Path())
    mask = torch.ones(40, 32, 32, dtype=torch.bool)
    planned = plan(EditJob(clip, mask, ("a red cat",), model))
    assert any("the mask is full" in note for note in planned.notes)
    assert planned.fit.model == (41, 32, 32) and planned.peak_bytes > 0
    with pytest.raises(ValueError, match="the model takes 33"):
        plan(EditJob(clip, mask, ("a red cat",), "shapes"))
