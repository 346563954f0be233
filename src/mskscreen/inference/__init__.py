"""Inference without torch: one model file, two engines, and the `Screener` that feeds them."""

from mskscreen.inference.engines import Engine, open_engine
from mskscreen.inference.screener import Screened, Screener

__all__ = ["Engine", "Screened", "Screener", "open_engine"]
