"""Run by test_cluster.py in a process of its own: `predict --ray` on two nodes, one of which is killed meanwhile.

python ray_cluster.py MODEL FOLDER OUTPUT
"""

import os
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from ray_node import node


def main(model: str, folder: str, output: str) -> None:
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_raylet_start_wait_time_s": "120"}
    import ray
    from ray.cluster_utils import Cluster

    from mskscreen.cli.main import run

    cluster = Cluster(True, head_node_args={**node(), "include_dashboard": False})
    second = cluster.add_node(**node())
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False)
    assert sum(node["Alive"] for node in ray.nodes()) == 2
    journal = Path(output + ".journal")
    seen = []

    def kill() -> None:
        while not seen:
            lines = journal.read_bytes().count(b"\n") if journal.exists() else 0
            if lines > 20:
                cluster.remove_node(second, allow_graceful=False)
                seen.append(lines - 1)
            time.sleep(0.01)

    threading.Thread(target=kill, daemon=True).start()
    sys.argv = ["mskscreen", "predict", folder, "--model", model, "--output", output, "--ray"]
    sys.argv += ["--precision", "int8", "--force-precision"]
    try:
        run()
    finally:
        # A crowded machine may end the table before the cluster hears of its loss.
        last = time.monotonic() + 60
        while (alive := sum(node["Alive"] for node in ray.nodes())) > 1 and time.monotonic() < last:
            time.sleep(0.1)
        print(f"killed after {seen} rows, {alive} nodes alive", flush=True)
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
