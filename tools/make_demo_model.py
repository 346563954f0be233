"""Make the bundled demonstration model from nothing: phantoms, training, calibration, export, test.

    make demo-model                                     (two cores; every finished part is kept and not redone)
    python tools/make_demo_model.py --studies 300 --test-studies 140 --steps 60 --size 128 --work /tmp/pilot

Writes demo.onnx, with its held-out figures in its contract, to src/mskscreen/models/. The model knows phantoms
only and has never seen a patient.
"""

from __future__ import annotations

import argparse
import copy
import importlib.metadata
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from rich.progress import Progress
from sklearn.decomposition import PCA

from mskscreen.anatomy import NOT_FOR_DIAGNOSIS
from mskscreen.contract import Calibration, ModelContract, Novelty, Provenance
from mskscreen.evaluation.calibration import fit_temperature, fit_temperature_and_offset
from mskscreen.evaluation.operating import RULES, choose
from mskscreen.evaluation.phantoms import phantom_figures
from mskscreen.export import export_onnx
from mskscreen.inference import Screener
from mskscreen.inference.engines import cores
from mskscreen.networks import ScreeningNetwork, build_network
from mskscreen.phantom.dataset import make
from mskscreen.phantom.plan import Recipe
from mskscreen.phantom.priors import location_prior
from mskscreen.pixels import Preprocessing
from mskscreen.predictions import softmax
from mskscreen.saliency.measures import pointing_game
from mskscreen.training.loop import Phase, Schedule, draw_back, fit, predict, settle
from mskscreen.training.phantoms import PhantomArrays, describe, load_arrays
from mskscreen.training.supervision import Weights

MODELS = Path(__file__).parents[1] / "src/mskscreen/models"
ARCHITECTURE = "timm:tf_efficientnet_lite0(pool=gem,merge=16,mirror=yes)"
SEEDS = {"train": 20261211, "more": 20261214, "dev": 20261212, "test": 20261213}
FROZEN = ("stem", *(f"backbone.trunk.{name}" for name in ("conv_stem", "bn1", "blocks.0", "blocks.1")))
SIZE = 448


@dataclass(frozen=True)
class Part:
    """A stretch of the training: which phantoms it sees, in squares of how many pixels, and by which schedules.

    What comes out is `share` of what was learned and the rest of what went in. With `settled`, statistics of batch
    normalisation are taken anew at the end.
    """

    data: str
    size: int
    schedules: tuple[Schedule, ...]
    share: float = 1.0
    settled: bool = False
    weights: Weights | None = None


def _again(
    steps: int, seeds: tuple[int, int], precision: Literal["f32", "bf16"] = "f32", worn: float = 1.0
) -> tuple[Part, Part]:
    """Whole images once more and half-way back, then the layers behind the pooling alone."""
    phase = Phase(steps, SIZE, turned=0.5, worn=worn)
    whole = Schedule((phase,), FROZEN, rate=2e-4, seed=seeds[0], precision=precision)
    last = Phase(150, SIZE, turned=0.5, worn=0.6)
    behind = Schedule((last,), ("stem", "backbone"), rate=5e-4, seed=seeds[1], precision=precision)
    return (
        Part("more", SIZE, (whole,), share=0.5, weights=Weights(joint=1.0)),
        Part("more", SIZE, (behind,), weights=Weights(joint=1.0, cells=0.3)),
    )


# Small views and close-ups first; then whole images, without which the pooling of small views stays. The same
# again on other phantoms and finer images, then the layers behind the pooling alone; the last two thrice more.
COURSE = (
    Part(
        "train",
        320,
        (
            Schedule(
                (Phase(4176, 192, close=0.6), Phase(224, 320)), FROZEN, rate=5e-4, warmup=0.0545, last=0.0877
            ),
            Schedule((Phase(760, 320),), FROZEN, rate=2e-4, seed=1),
        ),
    ),
    Part("train", 320, (Schedule((Phase(2300, 320, turned=0.5),), FROZEN, rate=4e-4, seed=2),), share=0.5),
    Part(
        "more",
        SIZE,
        (
            Schedule(
                (Phase(3000, 192, close=0.75, worn=0.4),), FROZEN, rate=3e-4, warmup=0.0623, last=0.2874, seed=3
            ),
            Schedule((Phase(120, SIZE, worn=0.4),), FROZEN, rate=2e-4, seed=4),
            Schedule((Phase(180, SIZE, worn=0.4),), FROZEN, rate=2e-4, seed=5),
        ),
        share=0.6,
        settled=True,
    ),
    Part(
        "more",
        SIZE,
        (
            Schedule((Phase(220, SIZE, worn=0.4),), ("stem", "backbone"), rate=5e-4, seed=6),
            Schedule((Phase(120, SIZE, worn=0.4),), ("stem", "backbone"), rate=5e-4, seed=7),
        ),
        weights=Weights(cells=0.3),
    ),
    *_again(620, (8, 9)),
    *_again(1300, (10, 11), "bf16"),
    *_again(1000, (12, 13), "bf16", worn=0.5),
)
STEPS = sum(schedule.steps for part in COURSE for schedule in part.schedules)
NEVER = (
    "Trained on phantoms (synthetic radiographs) only. It has never seen a patient and is not fit for patients."
)
Track = Callable[[str, int], Callable[[int], None]]


def main() -> None:
    """Run the parts in order; what an earlier run finished is taken as it is."""
    options = _options()
    with Progress(transient=True, disable=not sys.stderr.isatty()) as bars:

        def track(text: str, total: int) -> Callable[[int], None]:
            print(text, file=sys.stderr, flush=True)
            task = bars.add_task(text, total=total)
            return lambda count: bars.advance(task, count)

        sizes = {
            "train": options.studies,
            "more": options.studies * 3 // 2,
            "dev": max(options.studies // 8, 70),
            "test": options.test_studies,
        }
        folders = {name: options.work / name for name in sizes}
        for name, studies in sizes.items():
            recipe = Recipe(studies, SEEDS[name], options.long_side, pairs=name not in ("dev", "test"))
            make(folders[name], recipe, cores(), track(f"render {name}: {studies} studies", studies))

        def load(name: str, size: int) -> PhantomArrays:
            square = Preprocessing(size, size, fit="letterbox")
            return load_arrays(folders[name], square, occult=name in ("dev", "test"))

        course = [_scaled(part, options.steps / STEPS, options.size / SIZE) for part in COURSE]
        network = _train(load, course, options.work / "run", track)
        seen = {part.data: load(part.data, part.size) for part in course}
        provenance = Provenance(
            data=f"{sum(map(len, seen.values()))} phantom images; no radiograph of a person",
            data_digest=describe([folders[name] for name in seen]),
            seed=SEEDS["train"],
            versions={name: importlib.metadata.version(name) for name in ("mskscreen", "torch", "timm")},
            protocol={f"part {number}": asdict(part) for number, part in enumerate(course)},
            notes=NEVER,
            licence="Apache-2.0",
        )
        contract = _contract(network, seen["more"], load("dev", options.size), provenance)
        test = load("test", options.size)
        options.out.mkdir(parents=True, exist_ok=True)
        path = options.out / "demo.onnx"
        export_onnx(network, contract, path)
        table = Screener.load(path).predict([folders["test"] / "MURA-v1.1"])
        table.write(options.work / "test.json")
        found = phantom_figures(test.rows, table) | _pointing(network, test)
        found["pointing_game_image_free"] = location_prior(folders["test"], test.rows)[-1]["hit_rate"]
        notes = replace(contract.provenance, figures=found)
        export_onnx(network, replace(contract, provenance=notes), path)
        print(json.dumps(found, indent=1))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/demo-model"))
    parser.add_argument("--out", type=Path, default=MODELS)
    parser.add_argument("--studies", type=int, default=8000)
    parser.add_argument("--test-studies", type=int, default=2800)
    parser.add_argument("--steps", type=int, default=STEPS, help="of 32 images")
    parser.add_argument("--size", type=int, default=SIZE)
    parser.add_argument("--long-side", type=int, default=512)
    return parser.parse_args()


def _scaled(part: Part, steps: float, size: float) -> Part:
    """The part with both as shares of its own, for a pilot."""

    def scaled(phase: Phase) -> Phase:
        return replace(phase, steps=max(1, round(phase.steps * steps)), size=round(phase.size * size))

    schedules = (replace(schedule, phases=tuple(map(scaled, schedule.phases))) for schedule in part.schedules)
    return replace(part, size=round(part.size * size), schedules=tuple(schedules))


def _train(
    load: Callable[[str, int], PhantomArrays], course: list[Part], folder: Path, track: Track
) -> ScreeningNetwork:
    torch.manual_seed(course[0].schedules[0].seed)
    network = build_network(ARCHITECTURE, init="package")
    number = 0
    for part in course:
        arrays = load(part.data, part.size)
        first = copy.deepcopy(network) if part.share < 1 else None
        for schedule in part.schedules:
            report = _reporter(track(f"train on {len(arrays)} images, schedule {number}", schedule.steps))
            network = fit(network, arrays, schedule, folder / str(number), report, part.weights)
            number += 1
        if first is not None:
            draw_back(network, first, part.share)
        if part.settled:
            settle(network, arrays, FROZEN)
    return network


def _reporter(advance: Callable[[int], None]) -> Callable[[int, int, float], None]:
    """What `fit` tells of every step: the bar moves, and every fiftieth says the mean loss since the last."""
    losses: list[float] = []

    def report(step: int, total: int, loss: float) -> None:
        advance(1)
        losses.append(loss)
        if step % 50 == 0:
            print(f"step {step}/{total}: loss {np.mean(losses[-50:]):.3f}", file=sys.stderr, flush=True)

    return report


def _contract(
    network: ScreeningNetwork, known: PhantomArrays, dev: PhantomArrays, provenance: Provenance
) -> ModelContract:
    """Temperatures, operating points and the novelty threshold from phantoms `dev`; what is known from `known`.

    The offset of the abnormality score goes into the network's bias.
    """
    size = known.images.shape[1]
    pred1, pred2, features = predict(network, dev.images)
    names, study = np.unique([row.study for row in dev.rows], return_inverse=True)
    labels = np.zeros(len(names), np.int64)
    labels[study] = dev.abnormal
    temperature, offset = fit_temperature_and_offset(pred1, labels, study)
    with torch.no_grad():
        network.abnormality.bias[1] += offset
    pred1[:, 1] += offset
    calibration = Calibration(temperature, fit_temperature(pred2, dev.joint))
    p = softmax(pred1, calibration.abnormality_temperature)[:, 1]
    p_study = np.bincount(study, p) / np.bincount(study)
    _, _, pooled = predict(network, known.images[:: max(1, len(known) // 1000)])
    principal = PCA(64, svd_solver="randomized", random_state=0).fit(pooled)
    tensors = (torch.from_numpy(np.float32(x)) for x in (principal.mean_, principal.components_))
    variances = torch.from_numpy(np.float32(principal.explained_variance_))
    network.attach_novelty(*tensors, variances, float(principal.noise_variance_))
    assert network.novelty is not None  # noqa: S101 - set by the line above
    with torch.inference_mode():
        distances = network.novelty(torch.from_numpy(features)).numpy()
    quantile = 0.99
    threshold = float(np.quantile(distances, quantile))
    return ModelContract(
        name="demo",
        architecture=str(network.architecture),
        preprocessing=str(Preprocessing(size, size, fit="letterbox")),
        input_size=(size, size),
        calibration=calibration,
        operating_points={name: choose(labels > 0, p_study, rule).threshold for name, rule in RULES.items()},
        novelty=Novelty("Mahalanobis distance of pooled features, 64 principal components", threshold, quantile),
        provenance=provenance,
        intended_use=f"Demonstration and tests of software; {NOT_FOR_DIAGNOSIS}. {NEVER}",
    )


def _pointing(network: ScreeningNetwork, test: PhantomArrays) -> dict[str, float]:
    """The pointing game on visibly abnormal test images that score higher as abnormal than as normal."""
    chosen = [index for index, row in enumerate(test.rows) if row.label and not row.occult]
    maps, masks = [], []
    with torch.inference_mode():
        for index in chosen:
            image = torch.from_numpy(np.array(test.images[index])).float().div(255)[None, None]
            pred1, _, evidence = network(image)[:3]
            if pred1[0, 1] > pred1[0, 0] and test.masks[index].any():
                maps.append(evidence[0, 0].numpy())
                masks.append(test.masks[index] > 127)
    hits = pointing_game(maps, masks)
    return {"pointing_game": float(hits.mean()) if len(hits) else 0.0, "pointing_game_images": len(hits)}


if __name__ == "__main__":
    main()
