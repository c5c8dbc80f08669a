"""What `shd` runs in a process of its own: a damaged file makes libhdf5 read anywhere, fill the memory or hang.

A script that imports nothing of this package, which would take longer than reading a file.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

MARK = b"\nsuspike_datasets: "
"""Begins the answer, behind whatever else is printed."""


def answer(out: Any, path: str, seconds: int, room: int, sys_path: list[str]) -> None:
    """Write what a file holds to `out`, within `seconds` of CPU time and `room` bytes of memory.

    A line of JSON says of what types and lengths the arrays behind it are, or what is wrong with the file or missing.
    """
    sys.path[:] = sys_path
    try:
        import resource

        for what, most in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, room), (resource.RLIMIT_CORE, 0)):
            hard = resource.getrlimit(what)[1]
            resource.setrlimit(what, (most if hard < 0 else min(most, hard), hard))
    except (ImportError, OSError, ValueError):
        pass  # a system without them; the time limit outside remains
    arrays: list[Any] = []
    try:
        classes, arrays = contents(path)
        head: dict[str, Any] = {"classes": classes, "arrays": [(array.dtype.str, len(array)) for array in arrays]}
    except ImportError as err:
        head = {"missing": str(err).strip()}
    except Exception as err:  # whatever h5py lets out
        head = {"fault": str(err).rstrip(".") or type(err).__name__}
    out.write(MARK + json.dumps(head).encode() + b"\n")
    for array in arrays:
        out.write(array.data)
    out.flush()


def contents(path: str) -> tuple[list[str], list[Any]]:
    """Return the classes and the arrays of `shd._Found`, in their order."""
    import h5py
    import numpy as np

    size = os.stat(path).st_size
    with h5py.File(path, "r") as file:
        for key in ("spikes", "extra", "spikes/times", "spikes/units", "labels", "extra/speaker", "extra/keys"):
            if isinstance(file.get(key, getlink=True), (h5py.ExternalLink, h5py.SoftLink)):
                raise ValueError(f"`{key}` is not what SHD's layout has there, got a link")
        found = {key: file[key] for key in ("spikes/times", "spikes/units", "labels", "extra/speaker", "extra/keys")}
        wrong = [key for key, data in found.items() if not isinstance(data, h5py.Dataset) or data.ndim != 1]
        # what lies in other files is not read
        wrong += [key for key, data in found.items() if key not in wrong and (data.external or data.is_virtual)]
        for key, kind in (("spikes/times", "f"), ("spikes/units", "u")):
            inner = None if key in wrong else h5py.check_vlen_dtype(found[key].dtype)
            wrong += [] if isinstance(inner, np.dtype) and inner.kind == kind and inner.itemsize <= 8 else [key]
        wrong += [key for key in ("labels", "extra/speaker") if key not in wrong and found[key].dtype.kind not in "iu"]
        wrong += [] if "extra/keys" in wrong or found["extra/keys"].dtype.kind in "SO" else ["extra/keys"]
        if wrong:
            raise ValueError(f"`{wrong[0]}` is not what SHD's layout has there, got {found[wrong[0]]}")
        # what h5py takes for one of these types may be another one where the file is damaged
        for key in ("spikes/times", "spikes/units"):
            kind = found[key].id.get_type()
            if kind.encode() != h5py.h5t.vlen_create(kind.get_super()).encode():
                raise ValueError(f"`{key}` is not what SHD's layout has there, got a damaged type")
        n = len(found["labels"])
        off = [key for key, data in found.items() if key != "extra/keys" and len(data) != n]
        # a recording takes 16 bytes of the file at least, where its two lists are pointed at
        if off or n * 16 > size:
            raise ValueError(f"`{(off or ['labels'])[0]}` is not that of {n} recordings")
        keys = found["extra/keys"]
        if len(keys) * keys.dtype.itemsize > size:
            raise ValueError(f"`extra/keys` is longer than the file, {len(keys)} names")
        lists = [found["spikes/times"][()], found["spikes/units"][()]]
        arrays: list[Any] = [np.array([len(one) for one in some], np.int64) for some in lists]
        arrays += [found[key][()].astype(np.int64) for key in ("labels", "extra/speaker")]
        for some in lists:
            whole = np.concatenate([*some]) if n else np.empty(0, np.uint16)
            if whole.nbytes > size:
                raise ValueError(f"`spikes` is longer than the file, {len(whole)} of them")
            arrays.append(whole)
        return [k.decode() if isinstance(k, bytes) else str(k) for k in keys[()]], arrays


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    answer(answers, **json.loads(sys.stdin.read()))
