"""A thread pool of ours for kernels that hold no interpreter lock.

Not numba's `parallel=True`: with its OpenMP layer a forked DataLoader worker dies, with its workqueue two calling
threads abort the process.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise
from typing import TypeVar, cast

T = TypeVar("T")

_pools: dict[int, ThreadPoolExecutor] = {}  # by process: a forked child inherits no threads


def over_samples(work: Callable[[int, int], T], n_samples: int, n_threads: int, *, ranges_each: int = 1) -> list[T]:
    """Call ``work(low, high)`` on consecutive ranges of samples and return the results in order.

    There are `ranges_each` for each of several threads, and whoever is done takes the next: samples differ in length,
    and cores in speed. The ranges depend on the three numbers alone, so sums over them are reproducible. Without
    samples, `work` is called once with ``(0, 0)``.
    """
    n_threads = min(n_threads, n_samples)
    if n_threads <= 1:
        return [work(0, n_samples)]
    n_ranges = min(n_threads * ranges_each, n_samples)
    cuts = [n_samples * i // n_ranges for i in range(n_ranges + 1)]
    ranges = list(pairwise(cuts))
    pool = _pools.get(os.getpid())
    if pool is None:  # a thread starts when none is idle, so a pool has no more than were ever wanted at once
        pool = _pools.setdefault(os.getpid(), ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="suspike"))
    left, results = iter(range(n_ranges)), cast(list[T], [None] * n_ranges)

    def take() -> None:
        for i in left:  # an iterator of a range hands out each number once, whoever asks
            results[i] = work(*ranges[i])

    # the caller is one of the threads: woken side by side, two others were seen to share a core for 6 ms
    others = [pool.submit(take) for _ in range(n_threads - 1)]
    try:
        take()
    finally:
        started = [other for other in others if not other.cancel()]  # no work is left for one that has not begun
        wait(started)
    for other in started:  # what a thread raised is raised here
        other.result()
    return results
