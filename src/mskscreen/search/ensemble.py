"""An ensemble of the models of a search: chosen greedily on the development fold, judged on the evaluation set."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mskscreen.anatomy import NOT_FOR_DIAGNOSIS
from mskscreen.errors import DataError
from mskscreen.evaluation.cases import Cases, join
from mskscreen.evaluation.compare import Pair, compare, same_cases
from mskscreen.evaluation.estimates import Estimate
from mskscreen.evaluation.intervals import RESAMPLES
from mskscreen.evaluation.labels import read_labels
from mskscreen.evaluation.metrics import ranking_statistic
from mskscreen.evaluation.table import Table
from mskscreen.inference.ensemble import averaged_tables
from mskscreen.predictions import Predictions
from mskscreen.search.plan import EVALUATION, MODEL, Plan
from mskscreen.search.results import Findings, Result, development_cases, require_one_fold
from mskscreen.storage import write_text

FILE = "ensemble.json"


@dataclass(frozen=True)
class Chosen:
    """Members of an ensemble with their weights, and its development AUROC after each choice.

    `single` and `together` are the figures of the best single model and of the ensemble on the evaluation set and
    `pair` compares them; all None where there is no evaluation set.
    """

    members: tuple[tuple[Result, int], ...]
    development: tuple[float, ...]
    single: Mapping[str, Estimate] | None = None
    together: Mapping[str, Estimate] | None = None
    pair: Pair | None = None


def select(plan: Plan, findings: Findings, *, most: int = 10, resamples: int = RESAMPLES, seed: int = 0) -> Chosen:
    """Choose at most `most` models, the same one more than once if that is best, and judge what came of it.

    Candidates are the finished runs that learned both tasks, since the ensemble speaks of both. The evaluation set
    is looked at once, when the choice is made. Raises DataError where there is no candidate, and where the
    candidates have different development folds.
    """
    candidates = [result for result in findings.results if result.run.protocol.tasks == "both"]
    if not candidates:
        raise DataError(f"{plan.folder}: no finished run learned both tasks, which an ensemble needs")
    require_one_fold([result.run for result in candidates], "the models of an ensemble are chosen")
    cases = same_cases(development_cases(plan, [result.run for result in candidates]))
    order, scores = greedy(cases, most)
    weights = Counter(order)
    by_name = {result.run.name: result for result in candidates}
    members = tuple((by_name[name], weight) for name, weight in weights.items())
    if findings.on != "evaluation set":
        return Chosen(members, tuple(scores))
    result = compare(
        {"best single": by_name[order[0]].cases, "ensemble": _judged(plan, members)},
        resamples=resamples,
        seed=seed,
    )
    return Chosen(members, tuple(scores), result.models["best single"], result.models["ensemble"], result.pairs[0])


def greedy(models: Mapping[str, Cases], most: int) -> tuple[list[str], list[float]]:
    """Names of models in the order of their choice, and the AUROC of the mean of each beginning of that list.

    Forward selection with replacement (Caruana et al., ICML 2004) by the AUROC of studies; it ends where no model
    makes the mean better. Cases are the same and in the same order for every model.
    """
    labels = next(iter(models.values())).labels
    every = np.ones((1, len(labels)))

    def auroc(p: np.ndarray) -> float:
        return float(ranking_statistic(labels, p, average=False)(every)["auroc"][0])

    total, order, scores = np.zeros(len(labels)), [], []  # type: ignore[var-annotated]
    while len(order) < most:
        found = {name: auroc(total + cases.p) for name, cases in models.items()}
        name = max(found, key=lambda key: found[key])
        if scores and found[name] <= scores[-1]:
            break
        total = total + models[name].p
        order.append(name)
        scores.append(found[name])
    return order, scores


def _judged(plan: Plan, members: Sequence[tuple[Result, int]]) -> Cases:
    """The evaluation set as `predict` with these models would score it."""
    tables = [Predictions.read(plan.of(result.run) / EVALUATION) for result, _ in members]
    together = averaged_tables(tables, [weight for _, weight in members])
    return join(Table.of(together, "ensemble"), read_labels(plan.data, label_column=plan.labels)).cases()


def command(plan: Plan, chosen: Chosen) -> str:
    """The command that screens with the ensemble, for a shell."""
    models = [plan.of(result.run) / MODEL for result, weight in chosen.members for _ in range(weight)]
    options = [part for model in models for part in ("--model", str(model))]
    return shlex.join(["mskscreen", "predict", "SOURCES", *options])


def write(plan: Plan, chosen: Chosen) -> None:
    """Write the members, their files relative to the folder of the search, and the figures."""
    value = {
        "models": [
            {
                "file": str((plan.of(result.run) / MODEL).relative_to(plan.folder)),
                "weight": weight,
                "cell": result.run.cell,
                "seed": result.run.protocol.seed,
                "development_auroc": result.score,
            }
            for result, weight in chosen.members
        ],
        "development_auroc": chosen.development,
        "evaluation": {
            name: {figure: str(figures[figure]) for figure in ("auroc", "accuracy", "sensitivity", "specificity")}
            for name, figures in (("best single", chosen.single), ("ensemble", chosen.together))
            if figures
        },
        "predict": command(plan, chosen),
        "intended_use": NOT_FOR_DIAGNOSIS,
    }
    write_text(plan.folder / FILE, json.dumps(value, indent=1) + "\n")
