"""A search on a Ray cluster of two nodes on this machine that loses one, and then the process that drives it:

python two_nodes.py DATA SPACE SEARCH worker    # kills the second node while a run is on it
python two_nodes.py DATA SPACE SEARCH head      # kills itself, and so the head, after the first ending
python two_nodes.py DATA SPACE SEARCH signals   # the command, on one node, gets SIGINT in a run, and again SIGTERM
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_raylet_start_wait_time_s": "120"}

import ray
from ray.cluster_utils import Cluster
from ray_node import node

from mskscreen.cli.main import run as command
from mskscreen.search.cluster import run_on_ray
from mskscreen.search.plan import Plan, ending, events
from mskscreen.search.space import Run, Space


def kill_node(plan: Plan, cluster: Cluster, victim: object) -> None:
    """Kill a node as soon as a run has begun on it and has not ended."""
    while True:
        for run in plan.runs:
            begun = [event["where"] for event in events(plan.of(run)) if event["event"] == "begin"]
            if begun and victim.node_id in begun[-1] and ending(plan.of(run)) is None:
                cluster.remove_node(victim, allow_graceful=False)
                print("killed the node of", run.name, flush=True)
                return
        time.sleep(0.05)


def kill_head(cluster: Cluster, _: Run) -> None:
    """Kill every process of the head, and this one."""
    cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False)
    os.kill(os.getpid(), signal.SIGKILL)


def press(plan: Plan, kind: signal.Signals, before: int) -> None:
    """Send this process a signal as soon as runs have begun more than `before` times."""
    while sum(event["event"] == "begin" for run in plan.runs for event in events(plan.of(run))) <= before:
        time.sleep(0.05)
    os.kill(os.getpid(), kind)


def main(data: str, space: str, search: str, victim: str) -> None:
    plan = Plan.make(Path(search), Path(data), Space.from_toml(space))
    cluster = Cluster(initialize_head=True, head_node_args={**node(), "include_dashboard": False})
    if victim == "signals":
        sys.argv = ["mskscreen", "search", data, "--space", space, "--out", search, "--ray", cluster.address]
        for before, kind in enumerate((signal.SIGINT, signal.SIGTERM)):
            threading.Thread(target=press, args=(plan, kind, before), daemon=True).start()
            try:
                command()
            except SystemExit as done:
                print("exit code", done.code, flush=True)
    elif victim == "head":
        run_on_ray(plan, plan.todo(), address=cluster.address, ended=partial(kill_head, cluster))
    else:
        second = cluster.add_node(**node())
        cluster.wait_for_nodes()
        threading.Thread(target=kill_node, args=(plan, cluster, second), daemon=True).start()
        ray.init(cluster.address, log_to_driver=False)
        del os.environ["RAY_USAGE_STATS_ENABLED"]
        run_on_ray(plan, plan.todo())
        print("usage told:", os.environ["RAY_USAGE_STATS_ENABLED"], flush=True)
        print("connected" if ray.is_initialized() else "cut off", flush=True)
        ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
