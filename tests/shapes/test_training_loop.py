"""The training loop resumes as if it had not been stopped."""

import json

import pytest
import torch
from torch import nn

from kvlock.shapes.training.loop import STATE, load_average, train


class Block(nn.Module):
    """A matrix that Muon trains, as its name is that of a transformer block's, and a vector."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList([nn.Linear(3, 3, bias=False)])
        self.offset = nn.Parameter(torch.ones(3))

    def forward(self, x):
        return self.blocks[0](x) + self.offset


def _train(folder, steps, stop=None, rate=0.05):
    module = Block()

    def loss_at(step):
        if step == stop:
            raise KeyboardInterrupt
        x = torch.randn(16, 3, generator=torch.Generator().manual_seed(step))
        return {"loss": (module(x) - 2 * x).square().mean()}

    return module, train(module, loss_at, folder, steps, rate, ema_decay=0.9, save_seconds=0)


def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(tmp_path):
    module, whole = _train(tmp_path / "whole", 400)
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "stopped", 400, stop=47)
    _, resumed = _train(tmp_path / "stopped", 400)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    weights = {name: p.detach() for name, p in module.named_parameters()}
    assert (weights["blocks.0.weight"] - 2 * torch.eye(3)).abs().max() < 0.2
    assert weights["offset"].abs().max() < 0.2


def test_the_log_has_a_line_every_50_steps(tmp_path):
    _train(tmp_path, 100)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [50, 100]
    assert lines[1]["loss"] < lines[0]["loss"] and lines[1]["minutes_left"] == 0


def test_the_average_is_read_from_the_state(tmp_path):
    _, average = _train(tmp_path, 3)
    found = load_average(tmp_path)
    assert found.keys() == average.keys()
    assert all(torch.equal(found[name], average[name]) for name in average)


def test_a_run_of_no_steps_has_a_state_too(tmp_path):
    module, _ = _train(tmp_path, 0)
    found = load_average(tmp_path)
    assert torch.equal(found["offset"], module.offset)


def test_the_average_of_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=f"vace holds no {STATE}; train the stage 'vace' first"):
        load_average(tmp_path / "vace")


def test_fewer_steps_end_a_run_early_with_the_learning_rate_at_zero(tmp_path):
    """Resumed past the end of its steps, a run does nothing; near the end, it moves little."""
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path, 1000, stop=60)
    before = load_average(tmp_path)
    _, after = _train(tmp_path, 50)
    assert all(torch.equal(before[name], after[name]) for name in before)
