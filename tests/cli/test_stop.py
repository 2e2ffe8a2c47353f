"""Ctrl-C and its like at any moment: one line, the signal's exit code, nothing left."""

import signal
import subprocess
import sys

import pytest

from kvlock.shapes.scenes import write_scene
from support import tiny

# Sends itself a signal when the module is first looked for, or when the model first predicts.
STOPPED = """
import os, sys

class Stop:
    done = False
    def find_spec(self, name, path=None, target=None):
        if name == {module!r} and not Stop.done:
            Stop.done = True
            os.kill(os.getpid(), {number})

def stop(*arguments):
    os.kill(os.getpid(), {number})

sys.meta_path.insert(0, Stop())
if {module!r} == "":
    import kvlock.editing.edit
    kvlock.editing.edit.denoise_fitted = stop
sys.argv = ["kvlock", *{words!r}]
from kvlock.cli import run_and_exit
run_and_exit()
"""


def run(words, module, number):
    code = STOPPED.format(words=words, module=module, number=int(number))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize(
    "module, number",
    [
        ("tyro", signal.SIGINT),
        ("kvlock.cli.shapes", signal.SIGTERM),
        ("numpy", signal.SIGINT),
        ("torch._C", signal.SIGINT),
    ],
)
def test_while_everything_is_imported(tmp_path, module, number):
    words = ["edit", "a.mp4", "--mask", "a.png", "--prompt", "x", "--model", "shapes", "--out"]
    done = run([*words, str(tmp_path / "out")], module, number)
    assert done.returncode == 128 + number, done.stderr
    assert done.stderr.splitlines()[-1] == "kvlock: interrupted"
    assert "Traceback" not in done.stderr and not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_while_it_edits(tmp_path, number):
    inputs = tmp_path / "inputs"
    write_scene(0, inputs)
    tiny.vace_pipe().save_pretrained(inputs / "model")
    words = ["edit", f"{inputs}/source.mp4", "--mask", f"{inputs}/mask.mp4", "--prompt", "x"]
    words += ["--model", f"{inputs}/model", "--steps", "1", "--out", str(tmp_path / "out")]
    done = run(words, "", number)
    assert done.returncode == 128 + number, done.stderr
    assert "kvlock: interrupted" in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [inputs]
