"""What a run says of its epochs, for people and for their tools: CSV, TensorBoard, and MLflow where installed."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import io
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import Logger
from lightning.fabric.loggers.tensorboard import TensorBoardLogger

from mskscreen.storage import write_text
from mskscreen.training.protocol import Protocol

log = logging.getLogger(__name__)

METRICS = "metrics.csv"
FOLDER = "logs"


def write_history(folder: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Write metrics.csv, a row an epoch: written whole each time, so that no epoch is in it twice."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(history[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_text(folder / METRICS, text.getvalue())


def open_loggers(folder: Path, protocol: Protocol, first_step: int) -> list[Logger]:
    """TensorBoard below `folder`, and MLflow where it is installed, at MLFLOW_TRACKING_URI or below `folder`."""
    # Steps from the present one on are shown once, also where a killed run had logged them.
    loggers: list[Logger] = [TensorBoardLogger(folder, FOLDER, "", purge_step=first_step or None)]
    if importlib.util.find_spec("mlflow"):
        try:
            loggers.append(_mlflow(folder, protocol))
        except Exception as error:  # of whatever kind its client and its server raise
            _tell("MLflow", error)
    return loggers


def _mlflow(folder: Path, protocol: Protocol) -> Logger:
    from lightning.pytorch.loggers import MLFlowLogger

    known = folder / FOLDER / "mlflow-run.txt"
    logger = MLFlowLogger(
        experiment_name="mskscreen",
        run_name=folder.name,
        tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(folder / FOLDER).resolve()}/mlflow.db",
        run_id=known.read_text().strip() if known.is_file() else None,
    )
    logger.log_hyperparams(dataclasses.asdict(protocol))
    known.parent.mkdir(parents=True, exist_ok=True)
    write_text(known, str(logger.run_id))
    return logger


def log_epoch(loggers: list[Logger], row: Mapping[str, Any], step: int) -> None:
    """Send the figures of an epoch to every logger; one that fails is taken out of the list."""

    def send(logger: Logger) -> None:
        logger.log_metrics({name: float(value) for name, value in row.items()}, step)
        logger.save()

    _each(loggers, send)


def close_loggers(loggers: list[Logger]) -> None:
    """Tell every logger that the run has ended well."""
    _each(loggers, lambda logger: logger.finalize("success"))


def _each(loggers: list[Logger], action: Callable[[Logger], None]) -> None:
    for logger in list(loggers):
        try:
            action(logger)
        except Exception as error:  # of whatever kind its client and its server raise
            loggers.remove(logger)
            _tell(type(logger).__name__, error)


def _tell(name: str, error: Exception) -> None:
    said = f"{type(error).__name__}: {error}".splitlines()[0]
    log.warning("%s cannot log this run (%s); training goes on without it", name, said)
