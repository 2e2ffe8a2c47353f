"""To VBench and back."""

import json

import pytest

from kvlock.bench.rows import read_rows
from kvlock.cli import main
from kvlock.methods.catalogue import COMPOSITE


def test_to_vbench_and_back(results, tmp_path, capsys):
    videos = tmp_path / "videos"
    assert main(["bench", "export-vbench", str(results), str(videos)]) == 0
    names = sorted(p.name for p in videos.iterdir())
    assert len(names) == 4 and sum(n.endswith(f"{COMPOSITE}.mp4") for n in names) == 2
    assert main(["bench", "export-vbench", str(results), str(videos)]) == 2
    scores = {n: 0.1 * (i + 1) for i, n in enumerate(names)}
    entries = [{"video_path": str(videos / n), "video_results": v} for n, v in scores.items()]
    scored = {
        name: [0.5, entries]
        for name in ("subject_consistency", "background_consistency", "motion_smoothness")
    }
    scored |= {"aesthetic_quality": [0.5, entries], "dynamic_degree": [0.5, entries]}
    percent = [e | {"video_results": 100 * e["video_results"]} for e in entries]
    file = tmp_path / "results_eval_results.json"
    file.write_text(json.dumps(scored | {"imaging_quality": [0.5, percent]}))
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
