#!/usr/bin/env python3
"""Writes parity.json: training steps of `nin`, `nin-cifar` and `nin-small` as PyTorch computes them.

    /usr/bin/python3 tests/goldens/make_parity.py [nin] [nin-cifar] [nin-small nesterov] [nin-small adamw]

Needs PyTorch and numpy (Debian's python3-torch does; a few minutes on one core). No file of weights is
kept: weights, and the images of `nin-cifar`, come from the counter-based generator in philox.py, so that
a test makes the same bits for itself.

Weights
    Parameter i (in the order of the model's state_dict), element j (in OIHW order):
    w = philox(counter = [j / 4, i, 0, 0x50544F52], key = [seed, 0])[j % 4]
    u = (w >> 8) * 2^-24, value = (2 u - 1) * b, in f32 (only the product rounds), where b, rounded to
    f32, is gain * sqrt(6 / fan_in) for a weight (gain 1: He et al. 2015, uniform) and 1 / sqrt(fan_in)
    for a bias. The last bias is last_bias * (c + 1) for class c instead (an f32 product), so that no class
    starts dead behind the last ReLU and the losses start away from ln 10. `nin`'s gain is below 1, because
    at this learning rate larger weights amplify rounding: f32 and f64 would part by 1e-4 in eight steps.
Images
    nin: the first 256 training images of assets/fashion-mnist-mini, resized 28 -> 224 (bilinear,
    half-pixel centres), divided by 255. Step s takes images 32 s to 32 s + 31.
    nin-cifar: 128 images of 3x32x32 and their labels. Image n has label n % 10; its byte in channel c,
    row y, column x (e = 1024 c + 32 y + x) is (3 coarse + fine) / 4 rounded down, with
    fine   = philox([e / 4, n, 0, 0x494D4147], [seed, 0])[e % 4] >> 24
    coarse = philox([q / 4, n % 10, 1, 0x494D4147], [seed, 0])[q % 4] >> 24, q = 16 c + 4 (y / 8) + x / 8
    (a pattern for each class under noise), then divided by 255. Step s takes images 16 s to 16 s + 15.
    nin-small: as nin, 28x28 and 16 images a step.
Training
    nin and nin-cifar: SGD. The runs of nin-small have everything that an update can have: parameter groups (biases, and the
    last convolution), clip_grad_norm_, label smoothing, and an average of the weights (AveragedModel) whose decay behind step t
    (from 1) is min(ema, (1 + t) / (10 + t)).
Results, for each model, in f32 and in f64
    losses: mean cross entropy over the batch, before each update
    gradient_norms: L2 norm of each parameter's gradient in step 1
    gradient_projections: sum over j of +-1 times the gradient, with minus where
        philox([j / 4, i, 0, 0x5349474E], [seed, 0])[j % 4] >= 2^31
    update_norms, update_projections: the same of (value after the last step - first value), of the average where there is one
"""

import gzip
import json
import math
import pathlib
import sys
import time

import numpy as np
import torch
from torch import nn

from philox import words

HERE = pathlib.Path(__file__).resolve().parent
MINI = HERE.parent.parent / "assets" / "fashion-mnist-mini"
WEIGHTS, IMAGES, SIGNS = 0x50544F52, 0x494D4147, 0x5349474E
STEPS = 8

CONFIGS = {
    "nin": dict(seed=3, batch=32, lr=0.05, momentum=0.0, weight_decay=0.0, gain=0.75, last_bias=0.15),
    "nin-cifar": dict(seed=5, batch=16, lr=0.001, momentum=0.9, weight_decay=1e-4, gain=1.0, last_bias=0.05),
    "nin-small nesterov": dict(
        seed=7, batch=16, lr=0.002, momentum=0.9, weight_decay=1e-2, gain=1.0, last_bias=0.05, steps=12,
        rule="sgd", clip_norm=4.0, label_smoothing=0.1, ema=0.8,
    ),
    "nin-small adamw": dict(
        seed=8, batch=16, lr=0.0002, momentum=0.0, weight_decay=0.05, gain=1.0, last_bias=0.05, steps=12,
        rule="adamw", clip_norm=2.0, label_smoothing=0.1, ema=0.8,
    ),
}


def block(inputs: int, outputs: tuple[int, int, int], kernel: int, stride: int, padding: int):
    first, second, third = outputs
    return nn.Sequential(
        nn.Conv2d(inputs, first, kernel, stride, padding), nn.ReLU(),
        nn.Conv2d(first, second, 1), nn.ReLU(),
        nn.Conv2d(second, third, 1), nn.ReLU(),
    )  # fmt: skip


def build(name: str) -> nn.Sequential:
    """The models of the command line, without dropout's effect (p = 0 keeps the module numbers)."""
    if name == "nin":
        return nn.Sequential(
            block(1, (96, 96, 96), 11, 4, 0), nn.MaxPool2d(3, 2),
            block(96, (256, 256, 256), 5, 1, 2), nn.MaxPool2d(3, 2),
            block(256, (384, 384, 384), 3, 1, 1), nn.MaxPool2d(3, 2), nn.Dropout(0.0),
            block(384, (10, 10, 10), 3, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip
    if name.startswith("nin-small"):
        return nn.Sequential(
            block(1, (16, 16, 16), 5, 1, 2), nn.MaxPool2d(3, 2, ceil_mode=True),
            block(16, (64, 64, 32), 3, 1, 1), nn.MaxPool2d(3, 2, ceil_mode=True), nn.Dropout(0.0),
            block(32, (128, 128, 10), 3, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip
    return nn.Sequential(
        block(3, (192, 160, 96), 5, 1, 2), nn.MaxPool2d(3, 2, ceil_mode=True), nn.Dropout(0.0),
        block(96, (192, 192, 192), 5, 1, 2), nn.AvgPool2d(3, 2, ceil_mode=True), nn.Dropout(0.0),
        block(192, (192, 192, 10), 3, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


def initial_weights(model: nn.Module, config: dict) -> list[np.ndarray]:
    parameters = list(model.parameters())
    values = []
    for i, parameter in enumerate(parameters):
        # A bias follows its weight, whose shape gives both their fan_in.
        fan_in = parameters[i - i % 2][0].numel()
        is_weight = i % 2 == 0
        bound = config["gain"] * math.sqrt(6 / fan_in) if is_weight else 1 / math.sqrt(fan_in)
        if i == len(parameters) - 1:
            value = np.float32(config["last_bias"]) * np.arange(1, 11, dtype=np.float32)
        else:
            w = words(parameter.numel(), (i, 0, WEIGHTS), (config["seed"], 0))
            u = (w >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
            value = ((np.float32(2) * u - np.float32(1)) * np.float32(bound)).reshape(tuple(parameter.shape))
        values.append(value)
    return values


def fashion_images() -> tuple[np.ndarray, np.ndarray]:
    def data(name: str, header: int) -> np.ndarray:
        return np.frombuffer(gzip.decompress((MINI / name).read_bytes()), np.uint8, offset=header)

    images = data("train-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)
    return images[:256], data("train-labels-idx1-ubyte.gz", 8)[:256]


def cifar_images(seed: int) -> tuple[np.ndarray, np.ndarray]:
    count = 128
    fine = np.stack([words(3072, (n, 0, IMAGES), (seed, 0)) >> 24 for n in range(count)])
    coarse = np.stack([words(48, (label, 1, IMAGES), (seed, 0)) >> 24 for label in range(10)])
    coarse = coarse.reshape(10, 3, 4, 4).repeat(8, axis=2).repeat(8, axis=3)
    labels = np.arange(count) % 10
    images = (3 * coarse[labels] + fine.reshape(count, 3, 32, 32)) // 4
    return images.astype(np.uint8), labels.astype(np.uint8)


def norms_and_projections(tensors, seed: int) -> tuple[list[float], list[float]]:
    norms, projections = [], []
    for i, tensor in enumerate(tensors):
        flat = tensor.detach().double().numpy().reshape(-1)
        signs = np.where(words(flat.size, (i, 0, SIGNS), (seed, 0)) >= 2**31, -1.0, 1.0)
        norms.append(float(np.sqrt((flat * flat).sum())))
        projections.append(float((flat * signs).sum()))
    return norms, projections


def make_optimizer(model: nn.Module, config: dict) -> torch.optim.Optimizer:
    lr, decay = config["lr"], config["weight_decay"]
    if "rule" not in config:
        return torch.optim.SGD(model.parameters(), lr=lr, momentum=config["momentum"], weight_decay=decay)
    named = dict(model.named_parameters())
    groups = []
    for key, parameter in named.items():
        # As the Caffe networks: biases twice as fast and without decay, the last convolution ten times slower.
        rate, share = (1.0, 1.0) if key.endswith("weight") else (2.0, 0.0)
        if key.startswith("5.4."):
            rate *= 0.1
        groups.append({"params": [parameter], "lr": lr * rate, "weight_decay": decay * share})
    if config["rule"] == "adamw":
        return torch.optim.AdamW(groups)
    return torch.optim.SGD(groups, momentum=config["momentum"], nesterov=True)


def train(name: str, dtype: torch.dtype) -> dict:
    config = CONFIGS[name]
    seed, batch = config["seed"], config["batch"]
    model = build(name).to(dtype)
    start = [torch.from_numpy(v).to(dtype) for v in initial_weights(model, config)]
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), start):
            parameter.copy_(value)
    images, labels = cifar_images(seed) if name == "nin-cifar" else fashion_images()
    optimizer = make_optimizer(model, config)

    def average_of(average, parameter, count):
        # `count` models were averaged before: the start counts as one.
        decay = min(config["ema"], (1 + int(count)) / (10 + int(count)))
        return decay * average + (1 - decay) * parameter

    averaged = torch.optim.swa_utils.AveragedModel(model, avg_fn=average_of) if "ema" in config else None
    if averaged:
        averaged.update_parameters(model)
    result = {"losses": []}
    for step in range(config.get("steps", STEPS)):
        rows = slice(step * batch, (step + 1) * batch)
        x = torch.from_numpy(images[rows].astype(np.float32)).to(dtype)
        if name == "nin":
            x = nn.functional.interpolate(x, size=(224, 224), mode="bilinear", align_corners=False)
        logits = model(x / 255)
        target = torch.from_numpy(labels[rows].astype(np.int64))
        loss = nn.functional.cross_entropy(logits, target, label_smoothing=config.get("label_smoothing", 0.0))
        optimizer.zero_grad()
        loss.backward()
        result["losses"].append(loss.item())
        if step == 0:
            gradients = [parameter.grad for parameter in model.parameters()]
            norms, projections = norms_and_projections(gradients, seed)
            result |= {"gradient_norms": norms, "gradient_projections": projections}
        live = int((logits > 0).any(dim=0).sum())
        print(f"{name} {dtype} step {step}: loss {loss.item():.6f}, {live} classes live", flush=True)
        if "clip_norm" in config:
            norm = nn.utils.clip_grad_norm_(model.parameters(), config["clip_norm"])
            print(f"    gradient norm {norm:.4f}")
        optimizer.step()
        if averaged:
            averaged.update_parameters(model)
    last = averaged.module if averaged else model
    updates = [after - before for after, before in zip(last.parameters(), start)]
    norms, projections = norms_and_projections(updates, seed)
    return result | {"update_norms": norms, "update_projections": projections}


def main() -> None:
    torch.set_num_threads(1)
    names = sys.argv[1:] or list(CONFIGS)
    path = HERE / "parity.json"
    goldens = json.loads(path.read_text()) if path.exists() else {}
    goldens["made_by"] = f"tests/goldens/make_parity.py, PyTorch {torch.__version__}"
    for name in names:
        started = time.time()
        parameters = [key for key, _ in build(name).named_parameters()]
        goldens[name] = {
            **CONFIGS[name],
            "steps": CONFIGS[name].get("steps", STEPS),
            "parameters": parameters,
            "f32": train(name, torch.float32),
            "f64": train(name, torch.float64),
        }
        print(f"{name}: {time.time() - started:.0f} s", flush=True)
    path.write_text(json.dumps(goldens, indent=1) + "\n")


if __name__ == "__main__":
    main()
