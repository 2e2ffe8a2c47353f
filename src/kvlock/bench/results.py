"""What a run leaves in its folder, and the only reader of it.

OUT/suite.json                        the items of all runs into OUT
OUT/results/JOB/result.json           job, config, scores, seconds, device, versions
OUT/results/JOB/networks.json         scores that were added later, and by what they were measured
OUT/results/JOB/edited.mp4, trace.json
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kvlock.bench.jobs import Job
from kvlock.bench.suite import Item, Suite
from kvlock.media.files import write_json
from kvlock.methods.catalogue import method_named
from kvlock.methods.options import MethodConfig, config_from_dict, config_to_dict
from kvlock.versions import versions
from kvlock.work.folder import JobFolder, read_records

ADDED = "networks.json"
Scores = dict[str, dict[str, float]]  # of a row's suffix ("" or "+composite"), of a metric's name


@dataclass(frozen=True)
class Result:
    """One job that is done. `folder` holds its files; `seconds` are of the edit alone; `scores` has
    all metrics.
    """

    folder: Path
    item: str
    model: str
    method: str
    seed: int
    config: MethodConfig | None
    scores: Scores
    seconds: float
    device: str

    @property
    def name(self) -> str:
        """The job's id."""
        return self.folder.name

    @property
    def video(self) -> Path:
        """The edited clip."""
        return self.folder / "edited.mp4"

    def trace(self) -> list[dict[str, Any]]:
        """One record a step; empty for the VAE's ceiling."""
        return json.loads((self.folder / "trace.json").read_text())


def result_record(
    job: Job, edit_type: str, scores: Scores, seconds: float, device: str
) -> dict[str, Any]:
    """What `result.json` holds."""
    fields = {name: getattr(job, name) for name in ("item", "model", "method", "seed")}
    config = config_to_dict(job.config) if job.config else None
    return {
        "job": fields | {"config": config, "inputs": job.inputs, "edit_type": edit_type},
        "scores": scores,
        "seconds": seconds,
        "device": device,
        "versions": versions(),
    }


def read_results(out: Path) -> tuple[Suite, list[Result]]:
    """The suite and every result under `out`, by name. Raises ValueError where there is none."""
    records = read_records(out)
    if not records:
        raise ValueError(f"{out} holds no results; run kvlock bench run first")
    results = [_result(out / "results" / name, record) for name, record in records.items()]
    return read_suite_record(out), results


def read_suite_record(out: Path) -> Suite:
    """The suite of the results under `out`."""
    record = json.loads((out / "suite.json").read_text(encoding="utf-8"))
    items = tuple(Item(**item) for item in record["items"])
    return Suite(record["name"], Path(record["folder"]), items)


def record_suite(folder: JobFolder, suite: Suite) -> None:
    """Write down what is edited; several runs may add items, none may change one.

    Raises ValueError where the folder holds another suite.
    """
    items = [asdict(item) for item in suite.items]
    record = {"name": suite.name, "folder": str(suite.folder.absolute()), "items": items}
    path = folder.out / "suite.json"
    with folder.locked():
        if path.exists():
            before = json.loads(path.read_text(encoding="utf-8"))
            record["items"] = _joined(folder.out, before, record)
        write_json(path, record)


def add_scores(folder: JobFolder, result: Result, scores: Scores, by: Any) -> None:
    """Put scores beside a result's own, with what they were measured by; a metric that was there is
    replaced.
    """
    path = result.folder / ADDED
    with folder.locked():
        record = json.loads(path.read_text()) if path.exists() else {"scores": {}, "by": {}}
        for suffix, values in scores.items():
            record["scores"].setdefault(suffix, {}).update(values)
            record["by"].update(dict.fromkeys(values, by))
        write_json(path, record)


def _result(folder: Path, record: dict[str, Any]) -> Result:
    job, scores = record["job"], record["scores"]
    added = folder / ADDED
    if added.exists():
        for suffix, values in json.loads(added.read_text())["scores"].items():
            scores[suffix] = scores.get(suffix, {}) | values
    config = _config(folder, job) if job["config"] else None
    return Result(
        folder,
        job["item"],
        job["model"],
        job["method"],
        job["seed"],
        config,
        scores,
        record["seconds"],
        record["device"],
    )


def _config(folder: Path, job: dict[str, Any]) -> MethodConfig:
    try:
        return config_from_dict(type(method_named(job["method"])), job["config"])
    except (TypeError, ValueError) as error:
        said = f"{folder} is of another version of kvlock ({error})"
        raise ValueError(f"{said}; use another folder for new runs") from error


def _joined(out: Path, before: dict[str, Any], record: dict[str, Any]) -> list[dict[str, Any]]:
    """The items of both records. Raises ValueError where they are not of one suite."""
    has_files = any(item["video"] for item in record["items"])
    if before["name"] != record["name"] or (has_files and before["folder"] != record["folder"]):
        raise ValueError(
            f"--out {out} holds results of the suite {before['name']!r} in {before['folder']}; "
            "give another folder"
        )
    known = {item["id"]: item for item in before["items"]}
    changed = [item["id"] for item in record["items"] if known.get(item["id"], item) != item]
    if changed:
        raise ValueError(
            f"--out {out} holds results of another {changed[0]!r}; give another folder"
        )
    return before["items"] + [item for item in record["items"] if item["id"] not in known]
