"""Print the wall time, in ms, from this program's first import to its first result: ``first_call.py NETWORK``."""

import time

began = time.perf_counter()

import json  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

from network import load  # noqa: E402
from ours_simulate import graph_of, simulate  # noqa: E402

from suspike_kernels.layout import Events  # noqa: E402

imported = time.perf_counter()
net = load(Path(sys.argv[1]))
graph, events = graph_of(net), Events(net.ptr, net.idx, len(net.weight))
ready = time.perf_counter()
simulate(graph, events, n_threads=1)
done = time.perf_counter()
simulate(graph, events, n_threads=1)
again = time.perf_counter()
parts = {
    "imports": imported - began,
    "first call": done - ready,
    "from import to result": done - began,
    "second call": again - done,
}
sys.stdout.write(json.dumps({name: 1000 * s for name, s in parts.items()}) + "\n")
