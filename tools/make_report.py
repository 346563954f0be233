"""Evaluate a model on the phantom test set and write the reports to docs/results/.

    make report
    python tools/make_report.py --work /tmp/pilot --model demo --robust-studies 40 --out /tmp/results

Takes the work folder of tools/make_demo_model.py: thresholds and calibration come from its `dev`, all figures from
its `test`, and files of `train`, `more` or `dev` that are in `test` are counted by SHA-256. Writes evaluation.html
(with thumbnails of the worst errors), evaluation.json, card.md and README.md. Phantoms only: no figure is of a
patient. Tables are kept in WORK/report and not made again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mskscreen.evaluation.intervals import wilson
from mskscreen.evaluation.keys import study_key
from mskscreen.evaluation.phantoms import phantom_figures
from mskscreen.evaluation.report.gallery import SHOWN
from mskscreen.inference import Screened, Screener
from mskscreen.phantom.manifest import Row, read_manifest
from mskscreen.phantom.priors import location_prior
from mskscreen.predictions import Predictions
from mskscreen.saliency.measures import TOLERANCE, pointing_game

RESULTS = Path(__file__).parents[1] / "docs/results"
COLUMNS = ("age_group", "kind")
PREVALENCE = 0.1
_TITLES = {
    "studies": "studies",
    "joint_accuracy": "joint accuracy",
    "abnormality_auroc": "abnormality AUROC, all studies",
    "abnormality_auroc_visible": "abnormality AUROC, visible abnormalities",
    "calibration_error": "expected calibration error, 15 bins",
    "calibration_error_isotonic": "the same after isotonic calibration on the development studies",
    "pointing_game": f"peak of the map in the mask ({TOLERANCE:.0%} of the long side), images called abnormal",
    "pointing_game_images": "such images",
    "pointing_game_image_free": "the same for one fixed place a view, without looking",
}


def main() -> None:
    """Run the commands in order; each finished table is taken as it is."""
    options = _options()
    made, test = options.work / "report", options.work / "test"
    made.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    model = ("--model", options.model)
    for name in ("dev", "test"):
        mskscreen("predict", options.work / name / "MURA-v1.1", *model, "--output", made / f"{name}.json")
    robust = made / f"robustness-{options.robust_studies}"
    chosen = ("--studies", options.robust_studies, "--out", robust)
    mskscreen("robustness", made / "test.json", *model, "--images", test, *chosen)
    evaluation, report = options.out / "evaluation.json", options.out / "evaluation.html"
    judge = [
        *("evaluate", made / "test.json", *model, "--labels", test / "manifest.parquet"),
        *("--dev", made / "dev.json", "--dev-labels", options.work / "dev" / "manifest.parquet"),
        *(
            "--dev-other-set",
            "--at",
            "balanced",
            "--prevalence",
            PREVALENCE,
            "--robustness",
            robust / "index.json",
        ),
        *(word for column in COLUMNS for word in ("--by", column)),
    ]
    evaluation.write_text(mskscreen(*judge, "--format", "json"), encoding="utf-8")
    found = json.loads(evaluation.read_text())
    table = Predictions.read(made / "test.json")
    _draw(found, table, options.model, made)
    mskscreen(*judge, "--images", test, "--maps", made / "maps", "--report", report)
    mskscreen("card", options.model, "--evaluation", evaluation, "--out", options.out / "card.md")
    rows = read_manifest(test)
    screener = Screener.load(options.model)
    errors = {each["name"]: each["metrics"]["ece"]["value"] for each in found["calibration"]["reliability"]}
    figures = phantom_figures(rows, table) | {"calibration_error_isotonic": errors["isotonic"]}
    figures |= _pointing(screener, rows, test, table)
    page = _page(found, _rows(figures, rows), _shared_files(options.work), options.robust_studies)
    (options.out / "README.md").write_text(page, encoding="utf-8")
    print(page)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/demo-model"))
    parser.add_argument("--model", default="demo", help="an ONNX file or the name of a bundled model")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--robust-studies", type=int, default=280, help="disturbed and predicted again")
    return parser.parse_args()


def mskscreen(*arguments: object) -> str:
    """Run a command as a user would, and return what it prints."""
    command = [str(Path(sys.executable).with_name("mskscreen")), *map(str, arguments)]
    print("mskscreen", *command[1:4], "...", file=sys.stderr, flush=True)
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603 - our own


def _draw(found: dict[str, Any], table: Predictions, model: str, made: Path) -> None:
    """Evidence maps of the images of the worst errors, and of no others: drawing takes longer than screening."""
    worst = {case["study"] for errors in found["errors"].values() for case in errors["worst"][:SHOWN]}
    files = [row.file for row in table if study_key(row.file.rsplit("/", 1)[0]) in worst]
    if files:
        output = made / "errors.json"
        output.unlink(missing_ok=True)
        mskscreen("predict", *files, "--model", model, "--maps", made / "maps", "--output", output)


def _pointing(screener: Screener, rows: list[Row], folder: Path, table: Predictions) -> dict[str, Any]:
    """The pointing game on images of visible abnormalities called abnormal, and its image-free baseline."""
    if screener.engine.contract.map is None:
        return {}
    called = {row.file for row in table if row.abnormal}
    masks = {str(folder / row.image): row.mask for row in rows if row.mask and not row.occult}
    chosen = [file for file in masks if file in called]
    hits: list[bool] = []

    def inspect(image: Screened) -> None:
        if image.radiograph is None or image.evidence is None:
            return
        geometry = screener.preprocessing.geometry(*image.radiograph.pixels.shape)
        with Image.open(folder / str(masks[image.prediction.file])) as stored:
            mask = np.asarray(stored) > 127
        hits.extend(pointing_game([geometry.map_to_source(image.evidence)], [mask]))

    for _ in screener.stream(map(Path, chosen), workers=1, inspect=inspect):
        pass
    baseline = location_prior(folder, rows)[-1]["hit_rate"]
    if not hits:
        return {}
    low, high = wilson(sum(hits), len(hits)) or (0.0, 1.0)
    found = {"pointing_game": float(np.mean(hits)), "pointing_game_low": low, "pointing_game_high": high}
    return found | {"pointing_game_images": len(hits), "pointing_game_image_free": baseline}


def _shared_files(work: Path) -> str:
    """How many images of the other sets are in the test set too, by the SHA-256 of the files, in words."""
    digests = {name: _digests(work / name / "MURA-v1.1") for name in ("train", "more", "dev", "test")}
    said = []
    for name in ("train", "more", "dev"):
        shared = len(digests[name] & digests["test"])
        if digests[name]:
            said.append(f"{shared} of the {len(digests[name]):,} images of `{name}` are in `test`")
        else:
            said.append(f"`{name}` was not there to be compared")
    return "; ".join(said) + " (SHA-256 of the files)"


def _digests(folder: Path) -> set[str]:
    return {hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*.png")}


def _rows(figures: dict[str, Any], rows: list[Row]) -> list[str]:
    """Lines of a Markdown table, each figure with its interval; kinds with too few studies have none."""
    visible = {(row.study, row.joint): row.kind or "" for row in rows if row.label and not row.occult}
    kinds = Counter(visible.values())
    limits = {f"{name}_{end}" for name in figures for end in ("low", "high")}
    lines = []
    for name, value in figures.items():
        if name in limits or name.startswith("auroc_"):
            continue
        shown = f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
        lines.append(f"| {_TITLES.get(name, name)} |  | {shown} | {_interval(figures, name)} |")
    for kind, count in sorted(kinds.items()):
        name = f"auroc_{kind.replace(' ', '_')}"
        if name not in figures:
            lines.append(f"| {kind} | {count} | too few |  |")
        else:
            lines.append(f"| {kind} | {count} | {figures[name]:.3f} | {_interval(figures, name)} |")
    return lines


def _interval(figures: dict[str, Any], name: str) -> str:
    low, high = figures.get(f"{name}_low"), figures.get(f"{name}_high")
    return "" if low is None else f"{low:.3f} to {high:.3f}"


def _page(found: dict[str, Any], figures: list[str], apart: str, robust: int) -> str:
    study, made = found["study"]["overall"], found["provenance"]
    name, contract, today = made["model"]["name"], made["contract"][:16], f"{datetime.now(UTC):%Y-%m-%d}"
    lines = [
        "# Results on phantoms",
        "",
        f"Model `{name}` (SHA-256 of its contract `{contract}...`), {today}. **Phantoms only: no figure here is",
        "of a patient, and none says that the model is fit for patients. Research use, not for diagnosis.**",
        "",
        "- [evaluation.html](evaluation.html): the report, one file without network; its pictures are phantoms.",
        "- [evaluation.json](evaluation.json): every figure with its intervals, for machines.",
        "- [card.md](card.md): the model card.",
        "",
        "Made by `make report` (tools/make_report.py). How figures are computed: [numbers.md](../numbers.md).",
        "",
        f"- Evaluated: {study['cases']:,} studies of {study['patients']:,} phantom patients, "
        f"{study['abnormal']:,} abnormal.",
        f"- Thresholds and calibration: {found['development']['studies']:,} development studies.",
        f"- Disjoint: {apart}.",
        f"- Robustness: {min(robust, study['cases']):,} of the test studies, drawn at random (seed 0).",
        "",
        "## By kind of abnormality",
        "",
        "Studies of each kind in which at least one image shows it (Rose's k of 5 or more), against all normal",
        "studies. AUROC with DeLong's and shares with Wilson's 95 % interval, both of which take studies as",
        "independent.",
        "",
        "| Figure | Studies of the kind | Value | 95 % interval |",
        "|---|---|---|---|",
    ]
    return "\n".join([*lines, *figures]) + "\n"


if __name__ == "__main__":
    main()
