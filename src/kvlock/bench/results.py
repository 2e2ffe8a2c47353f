"""What a run leaves in its folder, and the only reader of it.

OUT/suite.json                        the items of all runs into OUT
OUT/results/JOB/result.json           job, config, scores, seconds, device, versions
OUT/results/JOB/networks.json         scores that were added later, and by what they were measured
OUT/results/JOB/edited.mp4, trace.json
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict

from kvlock.bench.jobs import CEILING, Job
from kvlock.bench.suite import Suite, item_of
from kvlock.contract.records import read_json
from kvlock.media.files import write_json
from kvlock.methods.catalogue import method_named
from kvlock.methods.options import MethodConfig, config_from_dict, config_to_dict
from kvlock.versions import versions
from kvlock.work.folder import RESULT, JobFolder, read_records

ADDED = "networks.json"
RUN_AGAIN = "kvlock bench run makes it again"
Scores = dict[str, dict[str, float]]  # of a row's suffix ("" or "+composite"), of a metric's name


class _Job(TypedDict):
    item: str
    model: str
    method: str
    seed: int
    config: dict[str, Any] | None


class ResultRecord(TypedDict):
    """What `result.json` holds, as far as it is read."""

    job: _Job
    scores: Scores
    seconds: float
    device: str


class _Added(TypedDict):
    scores: Scores
    by: dict[str, Any]


class _Step(TypedDict):
    variance: float | None
    fusion_ratio: float
    guidance_scale: float


class _SuiteRecord(TypedDict):
    name: str
    folder: str
    items: list[dict[str, Any]]


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
        return read_json(self.folder / "trace.json", list[_Step], _again(self.folder))


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
    records = read_records(out, ResultRecord, RUN_AGAIN)
    if not records:
        raise ValueError(f"{out} holds no results; run kvlock bench run first")
    results = [_result(out / "results" / name, record) for name, record in records.items()]
    suite = read_suite_record(out)
    strangers = sorted({result.item for result in results} - {item.id for item in suite.items})
    if strangers:
        raise ValueError(
            f"{out / 'suite.json'} does not have {strangers[0]!r}, of which is a result"
        )
    return suite, results


def read_suite_record(out: Path) -> Suite:
    """The suite of the results under `out`."""
    path = out / "suite.json"
    record = read_json(path, _SuiteRecord, f"remove it; {RUN_AGAIN}")
    try:
        items = tuple(item_of(item) for item in record["items"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}; remove it; {RUN_AGAIN}") from error
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
            read_suite_record(folder.out)  # refuses what is none
            before = read_json(path, _SuiteRecord, "")
            record["items"] = _joined(folder.out, before, record)
        write_json(path, record)


def add_scores(folder: JobFolder, result: Result, scores: Scores, by: Any) -> None:
    """Put scores beside a result's own, with what they were measured by; a metric that was there is
    replaced.
    """
    path = result.folder / ADDED
    with folder.locked():
        record = _read_added(path)
        for suffix, values in scores.items():
            record["scores"].setdefault(suffix, {}).update(values)
            record["by"].update(dict.fromkeys(values, by))
        write_json(path, record)


def _result(folder: Path, record: ResultRecord) -> Result:
    job, scores = record["job"], record["scores"]
    for suffix, values in _read_added(folder / ADDED)["scores"].items():
        scores[suffix] = scores.get(suffix, {}) | values
    config = _config(folder, job)
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


def _read_added(path: Path) -> "_Added":
    empty: _Added = {"scores": {}, "by": {}}
    return read_json(path, _Added, "remove it and measure again") if path.exists() else empty


def _again(folder: Path) -> str:
    return f"remove {folder}; {RUN_AGAIN}"


def _config(folder: Path, job: "_Job") -> MethodConfig | None:
    if job["method"] == CEILING and not job["config"]:
        return None
    try:
        return config_from_dict(type(method_named(job["method"])), job["config"] or {})
    except (TypeError, ValueError) as error:
        said = f"{folder / RESULT} is of another version of kvlock ({error})"
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
