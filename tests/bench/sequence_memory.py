"""Memory of a first training step, in a process of its own: ``sequence_memory.py MODULE:FUNCTION OPTIONS WORK SHORT``.

SHORT is the same work with few steps, which compiles and starts all that there is. Prints a JSON line: by how much the
step raises the peak of the resident memory, that peak, and its CPU time.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path

from sequence_work import load
from worker import _status, peak


def main() -> None:
    function, options, path, short = sys.argv[1:]
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    module, name = function.split(":")
    build = getattr(importlib.import_module(module), name)
    build(load(Path(short)), 1, **json.loads(options)).step()
    built = build(load(Path(path)), 1, **json.loads(options))
    before = time.process_time()
    mb = peak(built)["mb"]
    ms = 1e3 * (time.process_time() - before)
    print(json.dumps({"peak_mb": mb, "process_mb": _status("VmHWM") / 1024, "ms": ms} | built.facts))  # noqa: T201


if __name__ == "__main__":
    main()
