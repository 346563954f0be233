"""Screening of upper-limb musculoskeletal radiographs. Research use, not for diagnosis."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mskscreen.inference import Screener
    from mskscreen.predictions import Predictions

__version__ = "0.1.0"
__all__ = ["Predictions", "Screener", "__version__"]


def __getattr__(name: str) -> object:
    """Import the public classes when they are first asked for: `import mskscreen` alone costs nothing."""
    if name == "Screener":
        from mskscreen.inference import Screener

        return Screener
    if name == "Predictions":
        from mskscreen.predictions import Predictions

        return Predictions
    raise AttributeError(f"module 'mskscreen' has no attribute '{name}'")
