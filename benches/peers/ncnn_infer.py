#!/usr/bin/env python3
"""Measures inference of `nin` and `nin-cifar` in ncnn: one JSON line for each case, as README.md here says.

    ncnn_infer.py [--backends vulkan,cpu] [--models nin,nin-cifar] [--batch-sizes 1,...] [--precisions f32,mixed]
                  [--steps N] [--case-s S] [--budget-s S] [--threads N]

The networks are written as ncnn files with random weights into a temporary folder. ncnn has no batch: a batch
is a loop over its images. mixed is ncnn's own default, f16 where the device has it; f32 turns that off.
Needs the PyPI packages ncnn and numpy (compare.sh installs them into benches/.venv) and, for `vulkan`, a Vulkan
driver. What cannot run is printed as a line with "skipped" and the reason.
Exit codes: 0 done, skipped cases included; 1 failed; 2 usage; 3 no ncnn.
"""

import itertools
import sys
import tempfile
from pathlib import Path

from common import CLASSES, NETWORKS, Budget, arguments, list_of, measure, processor, report, skip, threads

try:
    import ncnn
    import numpy as np
except ImportError as error:
    print(f"ncnn_infer.py: this Python lacks a package ({error})", file=sys.stderr)
    sys.exit(3)

FULL, VALID = 0, 1  # Pooling's pad_mode: round the output's size up, or down.


def write_network(name: str, folder: Path) -> tuple[Path, Path, list[str]]:
    """The .param and .bin files, and the names of the pools' outputs."""
    channels, height, width = NETWORKS[name]["input"]
    rng = np.random.default_rng(1)
    lines = [f"Input images 0 1 images 0={width} 1={height} 2={channels}"]
    weights = []
    blob, pools = "images", []

    def append(kind: str, parameters: str) -> None:
        nonlocal blob
        output = f"b{len(lines)}"
        lines.append(f"{kind} {output} 1 1 {blob} {output} {parameters}")
        blob = output

    for kind, *options in NETWORKS[name]["layers"]:
        if kind == "conv":
            i, o, kernel, stride, padding = options
            count = o * i * kernel * kernel
            # 9=1 fuses the ReLU, as ncnn's own optimizer does.
            append("Convolution", f"0={o} 1={kernel} 3={stride} 4={padding} 5=1 6={count} 9=1")
            bound = (6 / (i * kernel * kernel)) ** 0.5
            # A word of zero in front of weights says that they are plain f32.
            weights += [b"\0\0\0\0", rng.uniform(-bound, bound, count).astype(np.float32).tobytes()]
            weights.append(rng.uniform(0, 0.1, o).astype(np.float32).tobytes())
        elif kind in ("max", "average"):
            average, mode = int(kind == "average"), FULL if options[0] else VALID
            append("Pooling", f"0={average} 1=3 2=2 5={mode}")
            pools.append(blob)
    append("Pooling", "0=1 4=1")
    lines[-1] = lines[-1].replace(f" {blob} 0=1", " logits 0=1")
    param, weight_file = folder / f"{name}.param", folder / f"{name}.bin"
    param.write_text(f"7767517\n{len(lines)} {len(lines)}\n" + "\n".join(lines) + "\n")
    weight_file.write_bytes(b"".join(weights))
    return param, weight_file, pools


def load(files, backend: str, precision: str, count: int) -> "ncnn.Net":
    net = ncnn.Net()
    net.opt.num_threads = count
    net.opt.use_vulkan_compute = backend == "vulkan"
    if precision == "f32":
        for option in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_packed", "bf16_storage"):
            if hasattr(net.opt, f"use_{option}"):
                setattr(net.opt, f"use_{option}", False)
    if net.load_param(str(files[0])) != 0 or net.load_model(str(files[1])) != 0:
        raise RuntimeError("ncnn could not load the network that this script wrote")
    return net


def extract(net, image, blob: str):
    with net.create_extractor() as extractor:
        extractor.input("images", image)
        status, output = extractor.extract(blob)
    if status != 0:
        raise RuntimeError(f"ncnn returned {status}")
    return output


def run(name: str, files, backend: str, precision: str, batch: int, options) -> dict:
    images = [ncnn.Mat(image) for image in np.random.default_rng(2).random((batch, *NETWORKS[name]["input"]), np.float32)]
    with load(files, backend, precision, options.threads) as net:
        for pool, size in zip(files[2], NETWORKS[name]["sizes_after_pools"]):
            if (shape := extract(net, images[0], pool)).w != size:
                raise RuntimeError(f"the network has the wrong shape: {shape.w} instead of {size} behind a pool")
        logits = np.array(extract(net, images[0], "logits")).reshape(-1)
        if logits.size != CLASSES or not np.isfinite(logits).all() or not (logits > 0).any():
            raise RuntimeError(f"the network's answer is wrong: {logits}")

        # An answer is in the host's memory when it is returned, so there is nothing to wait for.
        def step():
            for image in images:
                extract(net, image, "logits")

        return measure(step, lambda: None, options.steps, options.case_s)


def main() -> None:
    parser = arguments("Measures inference of nin and nin-cifar in ncnn.")
    parser.add_argument("--backends", type=list_of(str), default=["vulkan", "cpu"])
    parser.add_argument("--precisions", type=list_of(str), default=["f32", "mixed"])
    parser.add_argument("--threads", type=int, default=threads(), help="CPU threads (default: all)")
    options = parser.parse_args()
    for name, values, known in [
        ("models", options.models, set(NETWORKS)), ("backends", options.backends, {"vulkan", "cpu"}),
        ("precisions", options.precisions, {"f32", "mixed"}),
    ]:  # fmt: skip
        if set(values) - known:
            parser.error(f"--{name}: {', '.join(sorted(set(values) - known))} not known")
    budget = Budget(options.budget_s)
    gpus = ncnn.get_gpu_count() if "vulkan" in options.backends else 0
    gpu = ncnn.get_gpu_info(ncnn.get_default_gpu_index()).device_name() if gpus else "no Vulkan device"

    with tempfile.TemporaryDirectory(prefix="ncnn-peer-") as folder:
        networks = {name: write_network(name, Path(folder)) for name in options.models}
        for batch, name, backend, precision in itertools.product(
            options.batch_sizes, options.models, options.backends, options.precisions
        ):
            case = {
                "peer": f"ncnn-{backend}", "version": ncnn.__version__,
                "device": gpu if backend == "vulkan" else f"{processor()}, {options.threads} threads",
                "model": name, "mode": "infer", "batch_size": batch, "precision": precision,
            }  # fmt: skip
            if budget.spent():
                skip(case, f"the budget of {budget.seconds:g} s was spent")
            elif backend == "vulkan" and not gpus:
                skip(case, "ncnn finds no Vulkan device")
            else:
                try:
                    report(case, run(name, networks[name], backend, precision, batch, options))
                except RuntimeError as error:
                    skip(case, f"failed: {error}")
    if gpus:
        ncnn.destroy_gpu_instance()


if __name__ == "__main__":
    main()
