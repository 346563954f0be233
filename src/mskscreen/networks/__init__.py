"""The screening networks: the six of the release as one table, any timm backbone, and the in-graph map."""

from mskscreen.networks.network import ScreeningNetwork, build_network
from mskscreen.networks.table import NETWORKS, Architecture

__all__ = ["NETWORKS", "Architecture", "ScreeningNetwork", "build_network"]
