"""Time and memory of the evaluation: every metric with 2,000 resamples, and a million rows.

    python benchmarks/evaluation.py

Part one: 14,863 studies of 12,173 patients, the size of public MURA; every metric of both tasks, overall, per
joint and per number of views, percentile and BCa. CPU seconds are of both cores; on a busy machine they say more
than the clock. AUROC alone is then timed in turn with the usual way, copying patients and calling scikit-learn.

Part two: a Parquet table of 1,000,000 images is read, joined and evaluated at both levels in a process of its own,
whose peak memory is printed.

Measured 2026-11-22 on 2 cores, median (range) of 5:

    14,863 studies x 2,000 resamples, all metrics and groups: 15.5 (13.5-15.6) s, CPU 23.9 (21.0-24.0) s
    AUROC alone, CPU by copying patients / by weights: 16.1 (14.3-17.3)
    1,000,000 rows: peak 1.72 GiB, 264 s with 20 resamples

Measured again 2026-11-23, loaded (20 processes on the 2 cores), 2 runs of part one: CPU 23.3 and 23.5 s.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from mskscreen.anatomy import JointType
from mskscreen.evaluation.cases import Cases, join
from mskscreen.evaluation.intervals import Part, draw
from mskscreen.evaluation.labels import labels_from_paths
from mskscreen.evaluation.metrics import ranking_statistic
from mskscreen.evaluation.summary import summarise
from mskscreen.evaluation.table import Table, read_table
from mskscreen.predictions import softmax

STUDIES, PATIENTS, RESAMPLES = 14_863, 12_173, 2_000
ROWS = 1_000_000
REPEATS = 5


def synthetic(studies: int, patients: int, images: int, seed: int = 0) -> Table:
    """A predictions table under MURA names with `images` rows spread over the studies."""
    rng = np.random.default_rng(seed)
    patient = np.sort(np.r_[np.arange(patients), rng.integers(patients, size=studies - patients)])
    joint, abnormal = rng.integers(7, size=studies), rng.random(studies) < 0.4
    study = np.sort(np.r_[np.arange(studies), rng.integers(studies, size=images - studies)])
    folders = [
        f"{JointType(int(j)).codes.mura}/patient{p:06d}/study{s}"
        for s, (j, p) in enumerate(zip(joint.tolist(), patient.tolist(), strict=True))
    ]
    evidence = rng.normal(1.6 * abnormal - 0.8, 1)[study] + rng.normal(size=images)
    pred1 = np.stack([-evidence, evidence], axis=1)
    pred2 = rng.normal(size=(images, 7)) + 3 * (joint[study][:, None] == np.arange(7))
    suffix = ("negative", "positive")
    return Table(
        file=[
            f"MURA-v1.1/valid/{folders[s]}_{suffix[int(abnormal[s])]}/image{i}.png"
            for i, s in enumerate(study.tolist())
        ],
        study=[folders[s] for s in study.tolist()],
        patient=[None] * images,
        p_abnormal=softmax(pred1)[:, 1],
        p_joint=softmax(pred2),
        pred1=pred1,
        pred2=pred2,
        model={"name": "synthetic"},
    )


def auroc_by_copying(cases: Cases, resamples: int) -> float:
    """CPU seconds that the usual way takes: copy the studies of the drawn patients, call scikit-learn."""
    from sklearn.metrics import roc_auc_score

    rows = [np.flatnonzero(cases.patient == k) for k in range(len(cases.patients))]
    rng, start = np.random.default_rng(0), time.process_time()
    for _ in range(resamples):
        drawn = np.concatenate([rows[k] for k in rng.integers(len(rows), size=len(rows))])
        roc_auc_score(cases.labels[drawn], cases.p[drawn])
    return time.process_time() - start


def auroc_by_weights(cases: Cases, resamples: int) -> float:
    """CPU seconds of this package for the same."""
    start = time.process_time()
    part = Part(np.arange(len(cases)), ranking_statistic(cases.labels, cases.p, average=False))
    draw({"all": part}, cases.patient, resamples=resamples, bca=False)
    return time.process_time() - start


def write_parquet(table: Table, path: Path) -> None:
    """The table as `predict` writes it, without making a million objects."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def lists(values: np.ndarray) -> pa.Array:
        return pa.ListArray.from_arrays(np.arange(len(values) + 1) * values.shape[1], pa.array(values.ravel()))

    columns = {
        "file": pa.array(table.file),
        "study": pa.array(table.study),
        "patient": pa.nulls(len(table), pa.string()),
        "p_abnormal": pa.array(table.p_abnormal),
        "p_joint": lists(table.p_joint),
        "pred1": lists(table.pred1),
        "pred2": lists(table.pred2),
    }
    pq.write_table(pa.table(columns), path)


def million(path: Path) -> None:
    """Read, join and evaluate a large table at both levels, and print the peak memory of this process."""
    start = time.perf_counter()
    table = read_table(path)
    joined = join(table, labels_from_paths(table))
    for level in ("study", "image"):
        summarise(joined.cases(level), resamples=20)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{len(table):,} rows: peak {peak:.2f} GiB, {time.perf_counter() - start:.0f} s with 20 resamples")


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})"


def main() -> None:
    """Print every figure of the docstring."""
    table = synthetic(STUDIES, PATIENTS, 40_561)
    joined = join(table, labels_from_paths(table))
    cases = joined.cases()
    times, busy = [], []
    for seed in range(REPEATS):
        start, cpu = time.perf_counter(), time.process_time()
        summarise(cases, resamples=RESAMPLES, seed=seed)
        times.append(time.perf_counter() - start)
        busy.append(time.process_time() - cpu)
    print(
        f"{len(cases):,} studies x {RESAMPLES:,} resamples, all metrics and groups: "
        f"{_spread(times)} s, CPU {_spread(busy)} s"
    )
    ratios = [auroc_by_copying(cases, 100) / auroc_by_weights(cases, 100) for _ in range(REPEATS)]
    print(f"AUROC alone, CPU by copying patients / by weights: {_spread(ratios)}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "million.parquet"
        write_parquet(synthetic(ROWS // 3, ROWS // 4, ROWS), path)
        subprocess.run([sys.executable, __file__, str(path)], check=True)


if __name__ == "__main__":
    million(Path(sys.argv[1])) if len(sys.argv) > 1 else main()
