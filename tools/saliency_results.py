"""Measure all maps of models on fresh phantoms and write the tables under docs/results/saliency/.

    make saliency-results                   (the demonstration model: hours on 2 cores, about one with --few 8)
    python tools/saliency_results.py --model demo --model runs/resnet18.onnx --checkpoint runs/resnet18.safetensors
    python tools/saliency_results.py --model tiny.onnx --studies 70 --long-side 256 --few 6 --work /tmp/pilot

The default method explains every image of a visible abnormality that is called abnormal; methods that cost many
passes, and measures that ask the model, are taken on `--few` images. A checkpoint belongs to the model of the same
file name and adds integrated gradients. A run that is killed goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np

from mskscreen.anatomy import NOT_FOR_DIAGNOSIS
from mskscreen.evaluation.explain import report
from mskscreen.evaluation.explain.cases import right_cases
from mskscreen.evaluation.explain.explainer import Explainer, Settings
from mskscreen.evaluation.explain.faithful import asking, pictures
from mskscreen.evaluation.explain.files import Request, explain_files
from mskscreen.evaluation.explain.sanity import sanity
from mskscreen.evaluation.explain.score import GAIN, Row, development_levels, measure, table
from mskscreen.evaluation.explain.truth import Truths, read_truth
from mskscreen.inference import Screener
from mskscreen.phantom.dataset import make
from mskscreen.phantom.manifest import read_manifest
from mskscreen.phantom.plan import Recipe
from mskscreen.predictions import Predictions
from mskscreen.saliency import rise
from mskscreen.saliency.maps import read_records

OUT = Path(__file__).parents[1] / "docs/results/saliency"
SEEDS = {"dev": 20261222, "test": 20261223}
CHEAP = ("hirescam", "gradcam")
DEAR = ("occlusion", "rise")
RISE = rise.Settings(passes=1000, bound=0)


def main() -> None:
    """Make the phantoms, then measure one model after the other."""
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    for name, seed in SEEDS.items():
        studies = options.studies if name == "test" else max(14, options.studies // 4)
        recipe = Recipe(studies, seed, options.long_side, pairs=True)
        _say(f"render {name}: {studies} studies")
        make(options.work / name, recipe, os.cpu_count() or 1)
    checkpoints = {path.stem: path for path in options.checkpoint}
    for model in options.model:
        screener = Screener.load(model, precision="f32", reading="whole")
        checkpoint = checkpoints.get(screener.engine.path.stem)
        found = _measure(options, screener, checkpoint)
        name = screener.engine.path.stem
        (options.out / f"{name}.json").write_text(json.dumps(found["json"], indent=1) + "\n")
        (options.out / f"{name}.md").write_text(found["text"])
        _say(f"{options.out / name}.md")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", default=None)
    parser.add_argument("--checkpoint", action="append", type=Path, default=[])
    parser.add_argument(
        "--shuffled", type=Path, help="A model of the same architecture, trained on shuffled labels."
    )
    parser.add_argument("--work", type=Path, default=Path("build/saliency"))
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--studies", type=int, default=700)
    parser.add_argument("--long-side", type=int, default=512)
    parser.add_argument("--few", type=int, default=48)
    options = parser.parse_args()
    options.model = options.model or ["demo"]
    return options


def _measure(options: argparse.Namespace, screener: Screener, checkpoint: Path | None) -> dict:
    name = screener.engine.path.stem
    # Maps of an earlier model of this name stay apart.
    data, work = options.work / "test", options.work / f"{name}-{screener.engine.digest[:12]}"
    truths = read_truth(data)
    files = _visible(data)
    predictions = screener.predict(files)
    _explain(screener, None, CHEAP, files, work / "all")
    dev = _visible(options.work / "dev")
    _explain(screener, None, CHEAP, dev, work / "dev")
    known = read_truth(options.work / "dev")
    levels = development_levels(
        right_cases(screener.predict(dev), read_records(work / "dev"), known), work / "dev"
    )
    every = table(measure(right_cases(predictions, read_records(work / "all"), truths), work / "all", levels))
    called = [Path(row.file) for row in predictions.images if row.abnormal]
    few = [
        called[i] for i in np.unique(np.linspace(0, len(called) - 1, min(options.few, len(called))).astype(int))
    ]
    methods = (*CHEAP, *DEAR, *(["integrated-gradients"] if checkpoint else []))
    _explain(screener, checkpoint, methods, few, work / "few")
    some = _few(screener, predictions, truths, work / "few", levels, work / "report.html")
    checks = sanity(screener, few[:12], options.shuffled)
    lines = {"all": report.figures(every), "few": report.figures(some), "levels": levels, "sanity": checks}
    lines["data"] = {"studies": options.studies, "long_side": options.long_side, "seed": SEEDS["test"]}
    lines["model"] = screener.describe()
    return {"json": lines, "text": _text(name, every, some, checks, levels, options)}


def _visible(folder: Path) -> list[Path]:
    """Images whose abnormality can be seen."""
    return [folder / row.image for row in read_manifest(folder) if row.mask is not None and not row.occult]


def _explain(
    screener: Screener, checkpoint: Path | None, methods: tuple[str, ...], files: list[Path], folder: Path
) -> None:
    _say(f"{folder}: {', '.join(methods)} of {len(files)} images")
    explainer = Explainer(screener.engine, Settings(rise=RISE), checkpoint)
    for _ in explain_files(screener, explainer, Request(methods), files, folder):
        pass


def _few(
    screener: Screener,
    predictions: Predictions,
    truths: Truths,
    folder: Path,
    levels: dict[str, float],
    page: Path,
) -> list[Row]:
    """All methods and all measures, and the report."""
    joined = right_cases(predictions, read_records(folder), truths)
    _say(f"{folder}: asking the model about {joined}")
    rows = table(measure(joined, folder, levels, asked=asking(screener, joined.cases, len(joined.cases))))
    report.write_report(page, rows, report.described(joined, levels), pictures(joined.cases, folder, 12))
    return rows


def _text(
    name: str,
    every: list[Row],
    some: list[Row],
    checks: dict,
    levels: dict[str, float],
    options: argparse.Namespace,
) -> str:
    """The page of one model: targets first, met or missed."""
    best = next(row for row in every if (row.part, row.method) == ("all", "hirescam"))
    here = {row.method: row for row in some if row.part == "all"}
    insertion = {method: here[method].measures["insertion"].value for method in ("hirescam", "rise")}
    targets = [
        ("pointing game of HiResCAM (tolerance 3 %)", best.measures["pointing"], ">= 0.80", 0.80),
        ("the same less the best image-free prior", best.measures[GAIN], ">= 0.35", 0.35),
    ]
    lines = ["| target | measured | asked for | |", "|---|---|---|---|"]
    for title, found, wanted, least in targets:
        met = found.value is not None and found.value >= least
        lines.append(f"| {title} | {found} | {wanted} | {'met' if met else 'missed'} |")
    a, b = insertion["hirescam"], insertion["rise"]
    met = a is not None and b is not None and a > b
    lines.append(
        f"| insertion AUC of HiResCAM, 1 pass, above RISE, {here['rise'].passes:.0f} passes "
        f"| {a:.3f} against {b:.3f} | above | {'met' if met else 'missed'} |"
    )
    cases = best.cases
    parts = [part for part in dict.fromkeys(row.part for row in every) if part != "all"]
    cascades = "\n".join(
        f"| {stage['share']:.2f} | {stage['similarity']:.3f} | {stage['constant']:.2f} |"
        for stage in checks["cascade"]
    )
    repeats = "\n".join(f"| {what} | {value:.3f} |" for what, value in checks["repeatability"].items())
    shuffled = checks["label randomisation"]
    return "\n".join(
        [
            f"# Maps of `{name}`, measured on phantoms",
            "",
            f"A map shows what the model used, not where the lesion is; {NOT_FOR_DIAGNOSIS}. Figures on phantoms",
            "say nothing about patients. Made by `tools/saliency_results.py` "
            f"({options.studies} studies of {options.long_side} pixels, seed {SEEDS['test']}).",
            "",
            *lines,
            "",
            f"## Agreement with the masks, {cases} images called abnormal whose abnormality can be seen",
            "",
            f"Fixed level of IoU, chosen on other phantoms: {report.level_text(levels)}.",
            "",
            report.markdown(every),
            f"## All methods and measures, {here['hirescam'].cases} of these images",
            "",
            report.markdown(some),
            "## Sanity",
            "",
            "| share of layers shuffled, from the scores down | similarity of HiResCAM | share of constant maps |",
            "|---|---|---|",
            cascades,
            "",
            "| the same map again | similarity |",
            "|---|---|",
            repeats,
            "",
            "Against a model trained on shuffled labels: "
            + ("not measured." if shuffled is None else f"similarity {shuffled:.3f}."),
            "",
            *(
                text
                for part in parts
                for text in (f"## {part[0].upper()}{part[1:]}", "", report.markdown(every, part))
            ),
        ]
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
