"""A Ray cluster on this machine, in a process of its own: ``python tests/probes/fleet/cluster.py < ORDERS``.

It has a head without room for a worker, and a node more for each line ``add``; each node says that it has one H100 and
one core. After ``kill ID`` a node's process is gone, as with its machine. Each is answered by a JSON line, as the start
is. It ends with its standard input, and takes everything with it.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from ray.cluster_utils import Cluster

STORE_BYTES = 80 * 2**20
SMALL = {"object_store_memory": STORE_BYTES, "include_dashboard": False}

QUICK = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
"""A node that is gone is known to be in two seconds."""


def main() -> None:
    head = {"num_cpus": 0, "num_gpus": 0, "_system_config": QUICK, **SMALL}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        tell({"address": cluster.address, "session": cluster.head_node.get_session_dir_path()})
        nodes: dict[str, Any] = {}
        for line in sys.stdin:
            order, _, which = line.strip().partition(" ")
            if order == "add":
                # One core and one H100.
                node = cluster.add_node(num_cpus=1, num_gpus=1, resources={"accelerator_type:H100": 1}, **SMALL)
                nodes[node.node_id] = node
                tell({"node": node.node_id})
            else:
                (raylet,) = nodes[which].all_processes["raylet"]
                raylet.process.kill()
                raylet.process.wait()  # to Ray's workers, a process that nobody has waited for still lives
                tell({"killed": which})
    finally:
        cluster.shutdown()


def tell(document: dict[str, Any]) -> None:
    print(json.dumps(document), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
