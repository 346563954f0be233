"""Makes `calibrated` of the networks' room, and this room's data, importable by its tests."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "networks"), str(Path(__file__).parent)]
