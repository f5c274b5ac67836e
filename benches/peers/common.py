"""What the Python peers share: the networks as data, the clock, and the line that is printed.

The networks are those of src/models/nin.rs; ReLU follows every convolution, dropout is 0.5.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

# ("conv", in, out, kernel, stride, padding), ("max" or "average", round up), ("dropout",); pools are 3x3, stride 2.
NETWORKS = {
    "nin": {
        "input": (1, 224, 224),
        "sizes_after_pools": (26, 12, 5),
        "layers": [
            ("conv", 1, 96, 11, 4, 0), ("conv", 96, 96, 1, 1, 0), ("conv", 96, 96, 1, 1, 0),
            ("max", False),
            ("conv", 96, 256, 5, 1, 2), ("conv", 256, 256, 1, 1, 0), ("conv", 256, 256, 1, 1, 0),
            ("max", False),
            ("conv", 256, 384, 3, 1, 1), ("conv", 384, 384, 1, 1, 0), ("conv", 384, 384, 1, 1, 0),
            ("max", False), ("dropout",),
            ("conv", 384, 10, 3, 1, 1), ("conv", 10, 10, 1, 1, 0), ("conv", 10, 10, 1, 1, 0),
        ],
    },
    "nin-cifar": {
        "input": (3, 32, 32),
        "sizes_after_pools": (16, 8),
        "layers": [
            ("conv", 3, 192, 5, 1, 2), ("conv", 192, 160, 1, 1, 0), ("conv", 160, 96, 1, 1, 0),
            ("max", True), ("dropout",),
            ("conv", 96, 192, 5, 1, 2), ("conv", 192, 192, 1, 1, 0), ("conv", 192, 192, 1, 1, 0),
            ("average", True), ("dropout",),
            ("conv", 192, 192, 3, 1, 1), ("conv", 192, 192, 1, 1, 0), ("conv", 192, 10, 1, 1, 0),
        ],
    },
    "nin-small": {
        "input": (1, 28, 28),
        "sizes_after_pools": (14, 7),
        "layers": [
            ("conv", 1, 16, 5, 1, 2), ("conv", 16, 16, 1, 1, 0), ("conv", 16, 16, 1, 1, 0),
            ("max", True),
            ("conv", 16, 64, 3, 1, 1), ("conv", 64, 64, 1, 1, 0), ("conv", 64, 32, 1, 1, 0),
            ("max", True), ("dropout",),
            ("conv", 32, 128, 3, 1, 1), ("conv", 128, 128, 1, 1, 0), ("conv", 128, 10, 1, 1, 0),
        ],
    },
}  # fmt: skip
CLASSES = 10


def threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return "CPU"


def list_of(kind):
    return lambda text: [kind(word) for word in text.split(",") if word]


def arguments(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--models", type=list_of(str), default=["nin", "nin-cifar"], help=",".join(NETWORKS))
    parser.add_argument("--batch-sizes", type=list_of(int), default=[8], help="1,32,...")
    parser.add_argument("--steps", type=int, default=10, help="timed samples for a case")
    parser.add_argument("--case-s", type=float, default=60, help="seconds for a case, once warm")
    parser.add_argument("--budget-s", type=float, default=3600, help="no case starts after this many seconds")
    return parser


class Budget:
    def __init__(self, seconds: float):
        self.seconds = seconds
        self.end = time.monotonic() + seconds

    def spent(self) -> bool:
        return time.monotonic() > self.end


def measure(step, sync, samples: int, seconds: float, least_ms: float = 20) -> dict:
    """Milliseconds a step: the median over samples, each of enough steps to last `least_ms`, waited for at its end.

    Where a sample has several steps, `ms_latency` is a step that is waited for alone.
    """

    def sample(steps: int) -> float:
        started = time.perf_counter()
        for _ in range(steps):
            step()
        sync()
        return (time.perf_counter() - started) / steps * 1e3

    first = sample(1)
    warm = min(sample(1), sample(1))
    steps = max(1, min(1000, round(least_ms / warm)))
    if steps > 1:
        sample(steps)
    end = time.monotonic() + seconds
    times, alone = [], []
    while len(times) < samples and (len(times) < 3 or time.monotonic() < end):
        times.append(sample(steps))
        if steps > 1:
            alone.append(sample(1))
    times.sort()
    result = {
        "ms_per_step": round(statistics.median(times), 4),
        "ms_p10": round(times[round((len(times) - 1) * 0.1)], 4),
        "ms_p90": round(times[round((len(times) - 1) * 0.9)], 4),
        "samples": len(times),
        "first_step_s": round(first / 1e3, 3),
    }
    if alone:
        result["ms_latency"] = round(statistics.median(alone), 4)
    return result


def report(case: dict, timing: dict) -> None:
    rate = case["batch_size"] * 1e3 / timing["ms_per_step"]
    print(json.dumps({**case, "images_per_s": round(rate, 3), **timing}), flush=True)


def skip(case: dict, reason: object) -> None:
    lines = str(reason).strip().splitlines() or [type(reason).__name__]
    print(json.dumps({**case, "skipped": lines[0][:200]}), flush=True)
