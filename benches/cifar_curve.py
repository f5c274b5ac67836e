#!/usr/bin/env python3
"""Trains `nin-cifar` as the recipe `paper-cifar10` does, here and in PyTorch from the same weights, and compares the losses.

    benches/cifar_curve.py --data FOLDER [--steps N] [--dropout P] [--program target/release/nin-wgpu]

FOLDER holds CIFAR-10's binary files. Images come in the order of the files, normalised by channel. With --dropout 0 (the default)
nothing is random, and the losses agree until rounding decides otherwise; with another share both draw their own masks, and only
means can be compared. Needs PyTorch and numpy. Minutes on a CPU: `nin-cifar` takes 0.7 GFLOP an image.

Prints a table, and exits with 1 where --dropout 0 and a loss of the first ten steps differs by more than a thousandth.
"""

import argparse
import json
import math
import pathlib
import struct
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch
from torch import nn

ROOT = pathlib.Path(__file__).resolve().parent.parent
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
BATCH, LR, MOMENTUM, DECAY = 128, 0.05, 0.9, 1e-4


def build(dropout: float) -> nn.Sequential:
    def block(inputs, widths, kernel, padding):
        layers = []
        for i, width in enumerate(widths):
            layers += [nn.Conv2d(inputs, width, kernel if i == 0 else 1, padding=padding if i == 0 else 0), nn.ReLU()]
            inputs = width
        return nn.Sequential(*layers)

    return nn.Sequential(
        block(3, (192, 160, 96), 5, 2), nn.MaxPool2d(3, 2, ceil_mode=True), nn.Dropout(dropout),
        block(96, (192, 192, 192), 5, 2), nn.AvgPool2d(3, 2, ceil_mode=True), nn.Dropout(dropout),
        block(192, (192, 192, 10), 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


def start(model: nn.Module) -> None:
    """He et al. 2015, normal, the last layer's a tenth of it; biases 0, but for classes that start alive behind the last ReLU."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if name.endswith("weight"):
            nn.init.kaiming_normal_(parameter)
            if name == "6.4.weight":
                parameter.data.mul_(0.1)
        else:
            nn.init.constant_(parameter, 1.0 if name == "6.4.bias" else 0.0)


def save(model: nn.Module, path: pathlib.Path) -> None:
    """A safetensors file."""
    header, data = {}, b""
    for name, tensor in model.state_dict().items():
        raw = tensor.numpy().tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def images(folder: pathlib.Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    rows = [np.fromfile(folder / f"data_batch_{n}.bin", np.uint8).reshape(-1, 3073) for n in range(1, 1 + math.ceil(count / 10000))]
    rows = np.concatenate(rows)[:count]
    return rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0]


def in_pytorch(model: nn.Module, folder: pathlib.Path, steps: int) -> list[float]:
    pixels, labels = images(folder, steps * BATCH)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    groups = []
    for name, parameter in model.named_parameters():
        rate = 0.1 if name.startswith("6.4.") else 1.0 if name.endswith("weight") else 2.0
        groups.append({"params": [parameter], "lr": LR * rate, "weight_decay": DECAY if name.endswith("weight") else 0.0})
    optimizer = torch.optim.SGD(groups, momentum=MOMENTUM)
    losses = []
    model.train()
    for step in range(steps):
        rows = slice(step * BATCH, (step + 1) * BATCH)
        x = (torch.from_numpy(pixels[rows].astype(np.float32)) / 255 - mean) / std
        loss = nn.functional.cross_entropy(model(x), torch.from_numpy(labels[rows].astype(np.int64)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def here(arguments: argparse.Namespace, weights: pathlib.Path, out: pathlib.Path) -> list[float]:
    words = [
        arguments.program, "-q", "train", "--recipe", "paper-cifar10", "--data", arguments.data, "--initial-weights", weights,
        "--limit-train", arguments.steps * BATCH, "--limit-test", 1, "--epochs", 1, "--no-shuffle", "--no-augment",
        "--dropout", arguments.dropout, "--mean", ",".join(map(str, MEAN)), "--std", ",".join(map(str, STD)),
        "--lr", LR, "--batch-size", BATCH, "--log-every", 1, "--no-report", "--out", out,
    ]  # fmt: skip
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "step" in line]


def main() -> int:
    parser = argparse.ArgumentParser(description="Compares losses of nin-cifar with PyTorch's.")
    parser.add_argument("--data", required=True, type=pathlib.Path)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--program", default=ROOT / "target" / "release" / "nin-wgpu")
    arguments = parser.parse_args()
    model = build(arguments.dropout)
    start(model)
    with tempfile.TemporaryDirectory() as folder:
        weights = pathlib.Path(folder) / "start.safetensors"
        save(model, weights)
        began = time.monotonic()
        ours = here(arguments, weights, pathlib.Path(folder) / "run")
        half = time.monotonic()
    theirs = in_pytorch(model, arguments.data, arguments.steps)
    print(f"nin-wgpu {half - began:.0f} s, PyTorch {torch.__version__} {time.monotonic() - half:.0f} s; batch {BATCH}, dropout {arguments.dropout}")
    print("| steps | loss here | loss in PyTorch | largest relative difference |\n| :-- | --: | --: | --: |")
    size = 10
    for first in range(0, arguments.steps, size):
        a, b = np.array(ours[first : first + size]), np.array(theirs[first : first + size])
        print(f"| {first + 1} – {first + len(a)} | {a.mean():.4f} | {b.mean():.4f} | {np.max(np.abs(a / b - 1)):.1e} |")
    early = np.max(np.abs(np.array(ours[:10]) / np.array(theirs[:10]) - 1))
    return 1 if arguments.dropout == 0 and early > 1e-3 else 0


if __name__ == "__main__":
    sys.exit(main())
