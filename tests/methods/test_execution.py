"""How the forwards are run: nothing waits for the device while they are."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kvlock.core.trace import Trace
from kvlock.methods.edit import edit_clips
from kvlock.methods.execution import Execution
from support.edits import (
    BATCHED,
    SEQUENTIAL,
    Unpacked,
    config,
    dropped,
    wide_request,
)

ANCHORED = dict(background_anchor="latents")
FREE = config("s-omega", **ANCHORED)
USUAL = ((0.0, 0.5),)
CASES = {
    "lock": (config(**ANCHORED), BATCHED, None),
    "drop, refresh 2": (dropped(FREE, source_refresh=2), BATCHED, None),
    "drop, on the host": (dropped(FREE, source_refresh=2), Execution(source_store="host"), None),
    "layer by layer": (config(**ANCHORED), SEQUENTIAL, None),
    "a step's keys": (config(**ANCHORED), SEQUENTIAL, Unpacked),
    "calibrated": (config("calibrated-spatial", usual=USUAL), BATCHED, None),
    "proedit": (config("proedit"), BATCHED, None),
}


@pytest.mark.parametrize("case", CASES)
def test_no_step_waits_for_the_device(backbone, case, monkeypatch):
    """Between the first forward and the reading of the trace, no tensor's value is asked for."""
    reads, phase = [], ["before"]

    def noted(name):
        method = getattr(torch.Tensor, name)
        return lambda *args, **kwargs: reads.append((phase[0], name)) or method(*args, **kwargs)

    class Reads(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            aten = torch.ops.aten
            if func in (aten._local_scalar_dense.default, aten.nonzero.default):
                reads.append((phase[0], str(func)))
            return func(*args, **kwargs or {})

    def then(name, method):
        return lambda *args: phase.__setitem__(0, name) or method(*args)

    settings, execution, seen = CASES[case]
    backbone = seen(backbone) if seen else backbone
    for name in ("tolist", "item", "cpu", "numpy", "__bool__"):
        monkeypatch.setattr(torch.Tensor, name, noted(name))
    for name in ("predict", "predict_packed"):
        if hasattr(backbone, name):
            setattr(backbone, name, then("steps", getattr(backbone, name)))
    monkeypatch.setattr(Trace, "records", then("after", Trace.records))
    with Reads():
        edit_clips(backbone, [wide_request()], settings, execution)
    assert [name for when, name in reads if when == "steps"] == []
    assert {when for when, _ in reads} == {"before", "after"}


def test_execution_is_apart_from_the_method():
    """Nothing of it is in a config, and the defaults are the batch on the device."""
    assert Execution() == Execution("batched", "device")
    with pytest.raises(ValueError, match="^branches is 'parallel'; expected one of batched, seq"):
        Execution("parallel")
