"""A small node of Ray, for the tests that start a cluster in a process of its own."""

import socket


def node() -> dict[str, int]:
    """One processor; with ports given, a node need not wait for its agents, which take long on a busy machine."""
    ports = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in ports]
    found = {name: each.getsockname()[1] for name, each in zip(ports, sockets, strict=True)}
    for each in sockets:
        each.close()
    return {"num_cpus": 1, "object_store_memory": 100 << 20, **found}
