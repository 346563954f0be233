"""The model card: Markdown with the sections of "Model Cards" (Mitchell et al., arXiv:1810.03993)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mskscreen.contract import ModelContract
from mskscreen.errors import DataError, short
from mskscreen.evaluation.estimates import PREFERRED
from mskscreen.evaluation.metrics import ABNORMALITY

AUTHOR = "*To be written by the author.*"
_TITLE = "# Model card: "
_QUOTED = ("auroc", "accuracy", "sensitivity", "specificity", "kappa", "ece")


def read_evaluation(path: Path) -> dict[str, Any]:
    """The JSON of `mskscreen evaluate --format json`.

    Raises DataError where it is something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        value["study"]["overall"]["abnormality"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{path}: not the JSON of an evaluation; make it with: mskscreen evaluate --format json"
        ) from error
    return value


def model_card(contract: ModelContract, path: Path, evaluation: Mapping[str, Any] | None = None) -> str:
    """The card of the model in the file `path`; what only a person knows is left to the author."""
    made_by = (evaluation or {}).get("provenance", {}).get("contract")
    if made_by is not None and made_by != contract.digest:
        raise DataError(f"the evaluation is of another model than '{short(contract.name)}'; evaluate this one")
    sections = {
        "Model details": _details(contract, path),
        "Intended use": [
            f"- Primary use: {_cell(contract.intended_use.removesuffix('.'))}.",
            "- Out of scope: any diagnosis or treatment.",
            f"- {AUTHOR}",
        ],
        "Factors": _factors(evaluation),
        "Metrics": _metrics(contract),
        "Evaluation data": _evaluation_data(evaluation),
        "Training data": _training_data(contract),
        "Quantitative analyses": _analyses(contract, evaluation),
        "Ethical considerations": [AUTHOR],
        "Caveats and recommendations": [
            "- Labels of MURA say normal or abnormal, not which abnormality; metalwork counts as abnormal.",
            "- Figures of different data sets are not comparable: say which set a figure is of.",
            f"- {_cell(contract.provenance.notes) or AUTHOR}",
        ],
    }
    lines = [f"{_TITLE}{_cell(contract.name)}", ""]
    for title, body in sections.items():
        lines += [f"## {title}", "", *body, ""]
    return "\n".join(lines)


def is_card(path: Path) -> bool:
    """Whether a file begins as a model card does."""
    try:
        with path.open("rb") as stream:
            return stream.read(len(_TITLE)) == _TITLE.encode()
    except OSError:
        return False


def _details(contract: ModelContract, path: Path) -> list[str]:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    height, width = contract.input_size
    seen = contract.map
    outputs = {
        "abnormality": "abnormality (normal, abnormal)",
        "joint": f"joint type ({', '.join(contract.joints)})",
    }
    rows = {
        "Architecture": _cell(contract.architecture),
        "Input": f"one grayscale radiograph, {height} x {width}",
        "Preprocessing": _code(contract.preprocessing),
        "Outputs": " and ".join(outputs[task] for task in contract.tasks),
        "Evidence map": f"{_cell(seen.method)} of the {_cell(seen.layer)}, one cell for {seen.stride} pixels"
        if seen
        else "none",
        "File": f"{_code(path.name)}, {path.stat().st_size:,} bytes, SHA-256 `{digest}`",
        "Contract": f"SHA-256 `{contract.digest}`",
        "Licence": _cell(contract.provenance.licence) or AUTHOR,
        "Versions": _cell(", ".join(f"{k} {v}" for k, v in contract.provenance.versions.items())) or AUTHOR,
    }
    return _bullets(rows)


def _factors(evaluation: Mapping[str, Any] | None) -> list[str]:
    columns = list((evaluation or {}).get("study", {}).get("groups", {}))
    known = f"- Evaluated by: {_cell(', '.join(columns))}." if columns else "- No subgroup was evaluated."
    return [known, "- Not known: age, sex, vendor and site, unless they are named above.", f"- {AUTHOR}"]


def _metrics(contract: ModelContract) -> list[str]:
    if "abnormality" not in contract.tasks:
        return ["- The model learned joint types alone: there are no operating points."]
    lines = [
        "- Primary level: the study, whose probability is the mean over its images.",
        "- AUROC, sensitivity, specificity and Cohen's kappa with 95 % intervals from resampling patients.",
        f"- Calibration: temperature {contract.calibration.abnormality_temperature:.3f} (abnormality), "
        f"{contract.calibration.joint_temperature:.3f} (joint type).",
        "- Operating points (threshold of the calibrated study probability):",
    ]
    return lines + [f"  - {_cell(name)}: {value:.4f}" for name, value in contract.operating_points.items()]


def _evaluation_data(evaluation: Mapping[str, Any] | None) -> list[str]:
    if evaluation is None:
        return [AUTHOR]
    overall = evaluation["study"]["overall"]
    table = evaluation["provenance"]["tables"]["evaluation"]
    return [
        f"- {overall['cases']} studies of {overall['patients']} patients, {overall['abnormal']} abnormal.",
        *(
            [f"- Called abnormal at a probability of {evaluation['study']['threshold']:.4f} or more."]
            if overall["confusion"]
            else []
        ),
        f"- Labels: {_cell(table['labels'])}. Studies: SHA-256 {_code(str(table['studies_sha256']))}.",
    ]


def _training_data(contract: ModelContract) -> list[str]:
    made = contract.provenance
    rows = {
        "Data": _cell(made.data) or AUTHOR,
        "Digest": _code(made.data_digest) if made.data_digest else AUTHOR,
        "Seed": AUTHOR if made.seed is None else str(made.seed),
    }
    return _bullets(
        rows | {name: _cell(str(value)) for name, value in made.protocol.items() if not isinstance(value, Mapping)}
    )


def _analyses(contract: ModelContract, evaluation: Mapping[str, Any] | None) -> list[str]:
    figures = _figures(contract.provenance.figures)
    if figures:
        figures = ["Figures in the contract:", "", *figures, ""]
    if evaluation is None:
        return figures or [AUTHOR]
    study = evaluation["study"]
    if "abnormality" not in contract.tasks:
        return [*figures, f"- Accuracy of joint types: {_estimate(study['joint'].get('accuracy'))}"]
    header = ["Group", "Studies", *(ABNORMALITY[name].title for name in _QUOTED)]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for column, groups in {"": [study["overall"]], **study["groups"]}.items():
        for group in groups:
            name = f"{column} {group['name']}".strip()
            values = [_estimate(group["abnormality"].get(metric)) for metric in _QUOTED]
            lines.append("| " + " | ".join([_cell(name), str(group["cases"]), *values]) + " |")
    return [*figures, *lines]


def _figures(figures: Mapping[str, float]) -> list[str]:
    """One line a figure of the contract; `NAME_low` and `NAME_high` are the limits of `NAME`."""
    limits = {f"{name}_{end}" for name in figures for end in ("low", "high")}
    lines = []
    for name, value in figures.items():
        low, high = figures.get(f"{name}_low"), figures.get(f"{name}_high")
        interval = "" if low is None or high is None else f" ({low:.3f} to {high:.3f})"
        shown = f"{value:.0f}" if value == round(value) > 1 else f"{value:.3f}"
        if name not in limits:
            lines.append(f"- {_cell(name)}: {shown}{interval}")
    return lines


def _estimate(value: Mapping[str, Any] | None) -> str:
    if value is None:
        return "too few"
    if value["value"] is None:
        return "-"
    known = value["intervals"]
    chosen = next((known[name] for name in PREFERRED if name in known), None)
    return f"{value['value']:.3f}" + (f" ({chosen['low']:.3f} to {chosen['high']:.3f})" if chosen else "")


def _bullets(rows: Mapping[str, str]) -> list[str]:
    """One line a name; the texts are Markdown."""
    return [f"- {_cell(name)}: {text}" for name, text in rows.items()]


def _line(text: str) -> str:
    return "".join(c for c in " ".join(text.split()) if c.isprintable())


def _cell(text: str) -> str:
    """Text that can neither end a table cell nor begin a heading, a link or HTML."""
    return "".join(f"\\{c}" if c in "\\|`*[]<>#" else c for c in _line(text))


def _code(text: str) -> str:
    """Text in a span of code, which it cannot end."""
    return f"`{_line(text).replace('`', chr(39))}`"
