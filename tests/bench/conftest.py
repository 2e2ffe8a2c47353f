"""One tiny model and one finished run for all tests of bench."""

import pytest

from kvlock.cli import main
from support import tiny


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """The folder of a tiny random Wan-VACE."""
    folder = tmp_path_factory.mktemp("model") / "tiny-vace"
    tiny.vace_pipe().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def finished(model, tmp_path_factory):
    """Two scenes, two methods, two seeds, run to the end; the words that ran it."""
    out = tmp_path_factory.mktemp("finished")
    words = ["bench", "run", "shapes-validation", "--methods", "plain,kv-lock", "--limit", "2"]
    words += ["--seeds", "0..1", "--steps", "3", "--model", model, "--out", str(out)]
    assert main(words) == 0
    return out, words


@pytest.fixture(scope="module")
def results(model, tmp_path_factory):
    """The folder of one scene by plain sampling, to put scores beside."""
    out = tmp_path_factory.mktemp("results")
    words = ["--methods", "plain", "--limit", "1", "--steps", "2", "--model", model]
    assert main(["bench", "run", "shapes-validation", *words, "--out", str(out)]) == 0
    return out
