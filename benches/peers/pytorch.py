#!/usr/bin/env python3
"""Measures `nin`, `nin-cifar` and `nin-small` in PyTorch: one JSON line for each case, as README.md here says.

    pytorch.py [--device cpu|cuda] [--models nin,nin-cifar] [--modes train,infer] [--batch-sizes 8,...]
               [--execution eager,compile] [--layouts nchw,nhwc] [--precisions f32,tf32,mixed]
               [--steps N] [--case-s S] [--budget-s S] [--threads N] [--profile FILE]

Training is forward, cross entropy, backward and an SGD step; inference runs under inference_mode, without
dropout. f32 is strict (TF32 off); tf32 is PyTorch's default, TF32 in convolutions alone; mixed is autocast, f16 with a
gradient scaler on CUDA, bf16 on the CPU, and only channels last (nhwc). The default device is CUDA where there is one.
--profile appends PyTorch's own table of a step to FILE for each case: the kernels that ran, by name, and their times.
Needs PyTorch 1.13 or newer; `compile` needs 2.0 and, on the CPU, a C++ compiler. What cannot run is printed as
a line with "skipped" and the reason.
Exit codes: 0 done, skipped cases included; 1 failed; 2 usage; 3 no PyTorch, or no such device.
"""

from __future__ import annotations

import itertools
import sys
import warnings

from common import CLASSES, NETWORKS, Budget, arguments, list_of, measure, processor, report, skip, threads

try:
    import torch
except ImportError as error:
    print(f"pytorch.py: this Python has no PyTorch ({error})", file=sys.stderr)
    sys.exit(3)
from torch import nn

LEARNING_RATE = 0.001


def build(name: str) -> nn.Sequential:
    layers = []
    for kind, *options in NETWORKS[name]["layers"]:
        if kind == "conv":
            i, o, kernel, stride, padding = options
            convolution = nn.Conv2d(i, o, kernel, stride, padding)
            nn.init.kaiming_uniform_(convolution.weight, nonlinearity="relu")
            layers += [convolution, nn.ReLU()]
        elif kind == "max":
            layers.append(nn.MaxPool2d(3, 2, ceil_mode=options[0]))
        elif kind == "average":
            layers.append(nn.AvgPool2d(3, 2, ceil_mode=options[0]))
        else:
            layers.append(nn.Dropout(0.5))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def grad_scaler():
    """Scales the loss so that gradients in f16 do not vanish; under its older name before PyTorch 2.3."""
    return torch.amp.GradScaler("cuda") if hasattr(torch.amp, "GradScaler") else torch.cuda.amp.GradScaler()


def train_step(model, images, labels, precision: str):
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)
    kind = images.device.type
    half = torch.float16 if kind == "cuda" else torch.bfloat16
    scaler = grad_scaler() if precision == "mixed" and kind == "cuda" else None

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(kind, dtype=half, enabled=precision == "mixed"):
            loss = nn.functional.cross_entropy(model(images), labels)
        if scaler:
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        else:
            loss.backward()
            optimizer.step()
        return loss

    return step


def infer_step(model, images, precision: str):
    kind = images.device.type
    half = torch.float16 if kind == "cuda" else torch.bfloat16

    def step():
        with torch.inference_mode(), torch.autocast(kind, dtype=half, enabled=precision == "mixed"):
            return model(images)

    return step


def refusal(device: str, execution: str, layout: str, precision: str) -> str | None:
    """Why a combination is not measured."""
    if execution == "compile" and not hasattr(torch, "compile"):
        return f"PyTorch {torch.__version__} has no torch.compile"
    if precision == "tf32" and device != "cuda":
        return "TF32 exists on CUDA only"
    if precision == "tf32" and torch.cuda.get_device_capability() < (8, 0):
        return "this GPU has no TF32"
    if precision == "mixed" and layout == "nchw":
        return "mixed precision is measured channels last only"
    return None


def run(device: str, model_name: str, mode: str, batch: int, execution: str, layout: str, precision: str, options) -> dict:
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.manual_seed(1)
    memory_format = torch.channels_last if layout == "nhwc" else torch.contiguous_format
    model = build(model_name).to(device).to(memory_format=memory_format).train(mode == "train")
    images = torch.rand(batch, *NETWORKS[model_name]["input"], device=device).contiguous(memory_format=memory_format)
    labels = torch.randint(0, CLASSES, (batch,), device=device)
    if execution == "compile":
        # Caches of earlier shapes would make this one dynamic.
        torch._dynamo.reset()
        model = torch.compile(model)
    step = train_step(model, images, labels, precision) if mode == "train" else infer_step(model, images, precision)
    sync = torch.cuda.synchronize if device == "cuda" else lambda: None
    # Long enough that the GPU's queue is seldom empty.
    timing = measure(step, sync, options.steps, options.case_s, least_ms=200 if device == "cuda" else 20)
    last = step().float()
    if not torch.isfinite(last).all():
        raise RuntimeError("the result is not finite")
    if device == "cuda":
        timing["peak_gpu_bytes"] = torch.cuda.max_memory_allocated()
    if options.profile:
        profile(step, sync, options.profile, f"{model_name} {mode}, batch {batch}, {precision}, {execution}, {layout}")
    return timing


def profile(step, sync, path: str, title: str) -> None:
    """Appends PyTorch's table of one step to a file: operators and kernels, the most expensive first."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds, record_shapes=True) as found:
        step()
        sync()
    averages = found.key_averages(group_by_input_shape=True)
    # PyTorch 2.4 renamed CUDA's columns.
    on_device = [key for key in ["self_device_time_total", "self_cuda_time_total"] if averages and hasattr(averages[0], key)]
    order = on_device[0] if torch.cuda.is_available() and on_device else "self_cpu_time_total"
    table = averages.table(sort_by=order, row_limit=60, max_name_column_width=160, max_shapes_column_width=90)
    with open(path, "a") as file:
        file.write(f"== {title}\n{table}\n\n")


def main() -> None:
    parser = arguments("Measures nin and nin-cifar in PyTorch.")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--modes", type=list_of(str), default=["train", "infer"])
    parser.add_argument("--execution", type=list_of(str), default=["eager", "compile"])
    parser.add_argument("--layouts", type=list_of(str), default=["nchw", "nhwc"])
    parser.add_argument("--precisions", type=list_of(str), default=["f32", "tf32", "mixed"])
    # PyTorch's own default counts cores without their second hardware thread.
    parser.add_argument("--threads", type=int, default=threads(), help="CPU threads (default: all)")
    parser.add_argument("--profile", metavar="FILE", help="append a table of one step's kernels for each case")
    options = parser.parse_args()
    for name, values, known in [
        ("models", options.models, set(NETWORKS)), ("modes", options.modes, {"train", "infer"}),
        ("execution", options.execution, {"eager", "compile"}), ("layouts", options.layouts, {"nchw", "nhwc"}),
        ("precisions", options.precisions, {"f32", "tf32", "mixed"}),
    ]:  # fmt: skip
        if set(values) - known:
            parser.error(f"--{name}: {', '.join(sorted(set(values) - known))} not known")
    if options.device == "cuda" and not torch.cuda.is_available():
        print("pytorch.py: --device cuda: this PyTorch sees no CUDA device", file=sys.stderr)
        sys.exit(3)
    torch.set_num_threads(options.threads)
    torch.backends.cudnn.benchmark = True
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*TF32.*")
    cuda = options.device == "cuda"
    device_name = torch.cuda.get_device_name() if cuda else f"{processor()}, {torch.get_num_threads()} threads"
    budget = Budget(options.budget_s)

    for batch, model, mode, execution, precision, layout in itertools.product(
        options.batch_sizes, options.models, options.modes, options.execution, options.precisions, options.layouts
    ):
        case = {
            "peer": f"pytorch-{execution}" + ("-nhwc" if layout == "nhwc" else ""),
            "version": torch.__version__, "device": device_name, "model": model, "mode": mode,
            "batch_size": batch, "precision": precision,
        }  # fmt: skip
        reason = refusal(options.device, execution, layout, precision)
        if reason is None and budget.spent():
            reason = f"the budget of {budget.seconds:g} s was spent"
        if reason:
            skip(case, reason)
            continue
        try:
            if cuda:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            report(case, run(options.device, model, mode, batch, execution, layout, precision, options))
        # A compiler that is missing, memory that is not there: the other cases still run.
        except Exception as error:
            skip(case, f"failed: {error}" if str(error) else f"failed: {type(error).__name__}")


if __name__ == "__main__":
    main()
