#!/usr/bin/env python3
"""Writes ops.json: small cases of single operations as PyTorch computes them.

    /usr/bin/python3 tests/goldens/make_ops.py        (PyTorch and numpy; seconds)

Numbers are f32 values in decimal with nine significant digits, which give the same f32 back.
Tensors are flat, in NCHW order, beside their "shape". Contents:

    pools         {"op": "max"|"avg", "shape", "kernel", "stride", "padding", "ceil", "x", "output_shape",
                  "y", "grad_y", "grad_x"}; averages count the padding (count_include_pad = True);
                  ties of "ties" cases go to the first in scan order
    cross_entropy {"shape": [N, C], "logits", "labels", "loss", "grad", "probabilities"}: mean over N; some with
                  "label_smoothing"
    interpolate   {"from": [H, W], "to": [H, W], "x", "window": [top, left, height, width], "y"}: bilinear,
                  half-pixel centres, no antialias; y is that window of the result
    sgd           {"lr", "momentum", "weight_decay", "nesterov", "lr_steps", "w", "grads", "after"}: grads and
                  after hold one vector for each step; lr_steps, where there, is each step's rate
    adam          {"lr", "betas", "eps", "weight_decay", "w", "grads", "after"}, with "decoupled" AdamW
    updates       {"name", "rule", "lr", ..., "clip_norm", "ema", "groups", "w", "grads", "after", "average"}: several
                  parameter groups with [multiplier of lr, of weight_decay] each, torch.nn.utils.clip_grad_norm_ before
                  each step and torch.optim.swa_utils.AveragedModel behind it, whose decay behind step t (from 1) is
                  min(ema, (1 + t) / (10 + t)); grads, after and average hold a list of groups for each step
"""

import json
import pathlib

import numpy as np
import torch
from torch.nn import functional as F

from philox import words

HERE = pathlib.Path(__file__).resolve().parent
OPS = 0x4F505321
streams = 0


def uniform(*shape: int) -> torch.Tensor:
    """Values in [-2, 2) that are multiples of 2^-20; each call its own stream of the generator."""
    global streams
    streams += 1
    count = int(np.prod(shape))
    w = (words(count, (streams, 0, OPS), (1, 0)) >> 10).astype(np.float64)
    return torch.from_numpy((w * 2.0**-20 - 2).astype(np.float32).reshape(shape))


def flat(tensor: torch.Tensor) -> list[float]:
    return [float(f"{value:.9g}") for value in tensor.detach().reshape(-1).tolist()]


def pools() -> list[dict]:
    cases = [
        ((2, 3, 7, 6), 3, 2, 0, False), ((2, 3, 7, 6), 3, 2, 0, True), ((1, 4, 6, 6), 3, 2, 1, True),
        ((1, 2, 8, 5), (2, 3), (2, 2), (1, 1), True), ((1, 2, 8, 8), 3, 2, 0, True), ((1, 1, 5, 5), 2, 3, 1, True),
        ((3, 1, 4, 4), 2, 2, 0, False), ((1, 5, 5, 7), 3, 1, 1, False), ((1, 2, 6, 7), 2, 3, 0, False),
        ((1, 3, 5, 5), 5, 1, 2, False), ((1, 13, 3, 3), 3, 2, 0, False), ((1, 2, 9, 4), (4, 1), (3, 2), (2, 0), True),
        ((1, 2, 4, 4), 1, 2, 0, True), ((2, 1, 6, 6), 3, 4, 1, True),
    ]  # fmt: skip
    result = []
    for op in ("max", "avg"):
        for ties in (False, True):
            for shape, kernel, stride, padding, ceil in cases:
                x = uniform(*shape)
                if ties:
                    if op == "avg" or shape[1] > 4:
                        continue
                    x = torch.round(x)  # five values: nearly every window has a tie
                x.requires_grad_()
                pool = F.max_pool2d if op == "max" else F.avg_pool2d
                y = pool(x, kernel, stride, padding, ceil_mode=ceil)
                grad_y = uniform(*y.shape)
                y.backward(grad_y)
                pair = lambda v: list(v) if isinstance(v, tuple) else [v, v]
                result.append({
                    "op": op, "ties": ties, "shape": list(shape), "kernel": pair(kernel), "stride": pair(stride),
                    "padding": pair(padding), "ceil": ceil, "x": flat(x), "output_shape": list(y.shape),
                    "y": flat(y), "grad_y": flat(grad_y), "grad_x": flat(x.grad),
                })  # fmt: skip
    return result


def cross_entropy() -> list[dict]:
    def logits(n: int, classes: int, scale: float) -> torch.Tensor:
        return uniform(n, classes) * scale

    huge = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4], [1e4, 1e4, 1e4], [-1e4, -1e4, -1e4]])
    cases = [
        (logits(4, 10, 1), [3, 0, 9, 5]), (logits(1, 2, 5), [1]), (logits(3, 17, 20), [16, 0, 8]),
        (torch.relu(logits(5, 10, 1)), [0, 1, 2, 3, 4]), (torch.zeros(2, 10), [0, 9]), (logits(2, 1000, 3), [999, 500]),
        (huge, [0, 1, 2, 0]), (huge, [1, 0, 0, 2]), (logits(7, 3, 1e-6), [0, 1, 2, 0, 1, 2, 0]), (logits(2, 1, 1), [0, 0]),
    ]  # fmt: skip
    result = []
    for x, labels in cases:
        x = x.clone().requires_grad_()
        loss = F.cross_entropy(x, torch.tensor(labels))
        loss.backward()
        result.append({
            "shape": list(x.shape), "logits": flat(x), "labels": labels, "loss": flat(loss)[0],
            "grad": flat(x.grad), "probabilities": flat(torch.softmax(x, dim=1)),
        })  # fmt: skip
    return result


def interpolate() -> list[dict]:
    cases = [
        ((28, 28), (224, 224), (0, 0, 12, 12)), ((28, 28), (224, 224), (212, 100, 12, 24)), ((32, 32), (48, 48), (0, 0, 48, 48)),
        ((5, 7), (11, 3), (0, 0, 11, 3)), ((4, 4), (4, 4), (0, 0, 4, 4)), ((1, 1), (3, 5), (0, 0, 3, 5)),
        ((2, 3), (7, 8), (0, 0, 7, 8)), ((13, 9), (6, 4), (0, 0, 6, 4)), ((28, 28), (32, 32), (0, 0, 32, 32)),
    ]  # fmt: skip
    result = []
    for size, to, (top, left, height, width) in cases:
        # Whole numbers from 0 to 255, as pixels are.
        x = torch.floor((uniform(1, 1, *size) + 2) * 64)
        y = F.interpolate(x, size=to, mode="bilinear", align_corners=False)
        result.append({
            "from": list(size), "to": list(to), "x": [int(v) for v in x.reshape(-1).tolist()],
            "window": [top, left, height, width], "y": flat(y[0, 0, top : top + height, left : left + width]),
        })  # fmt: skip
    return result


def optimizer_case(make, length: int, steps: int, rates=None) -> dict:
    w = uniform(length).requires_grad_()
    start, grads, after = flat(w), [], []
    optimizer = make([w])
    for step in range(steps):
        if rates:
            optimizer.param_groups[0]["lr"] = rates[step]
        w.grad = uniform(length) * 0.5
        grads.append(flat(w.grad))
        optimizer.step()
        after.append(flat(w))
    return {"w": start, "grads": grads, "after": after}


def sgd() -> list[dict]:
    cases = [
        dict(lr=0.1), dict(lr=0.1, weight_decay=5e-4), dict(lr=0.05, momentum=0.9), dict(lr=0.05, momentum=0.9, weight_decay=1e-2),
        dict(lr=0.05, momentum=0.9, nesterov=True), dict(lr=0.02, momentum=0.8, weight_decay=5e-3, nesterov=True),
    ]  # fmt: skip
    result = []
    for number, case in enumerate(cases):
        options = {"momentum": 0.0, "weight_decay": 0.0, "nesterov": False, **case}
        # Every second case changes the rate, which must not rescale the momentum already gathered.
        rates = [options["lr"] * factor for factor in (1, 0.5, 2, 0.1, 0)] if number % 2 else None
        run = optimizer_case(lambda w: torch.optim.SGD(w, **options), 9, 5, rates)
        result.append({**options, **({"lr_steps": rates} if rates else {}), **run})
    return result


def adam() -> list[dict]:
    result = []
    for case in (dict(lr=1e-3), dict(lr=0.02, weight_decay=1e-2), dict(lr=0.01, betas=(0.5, 0.9), eps=1e-4)):
        options = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, **case}
        run = optimizer_case(lambda w: torch.optim.Adam(w, **options), 9, 8)
        result.append({**options, **run})
    return result


def adamw() -> list[dict]:
    result = []
    for case in (dict(lr=1e-3, weight_decay=1e-2), dict(lr=0.02, weight_decay=0.5, betas=(0.5, 0.9), eps=1e-4)):
        options = {"betas": (0.9, 0.999), "eps": 1e-8, **case}
        run = optimizer_case(lambda w: torch.optim.AdamW(w, **options), 9, 8)
        result.append({**options, "decoupled": True, **run})
    return result


def smoothed() -> list[dict]:
    result = []
    for (n, c), smoothing in [((5, 10), 0.1), ((3, 4), 0.25), ((2, 100), 0.5)]:
        logits = (uniform(n, c) * 3).requires_grad_()
        labels = torch.tensor([(7 * i + 3) % c for i in range(n)])
        loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        loss.backward()
        result.append({
            "shape": [n, c], "label_smoothing": smoothing, "logits": flat(logits), "labels": labels.tolist(), "loss": loss.item(),
            "grad": flat(logits.grad), "probabilities": flat(F.softmax(logits, dim=1)),
        })  # fmt: skip
    return result


def updates() -> list[dict]:
    caffe = [[1.0, 1.0], [2.0, 0.0], [0.1, 1.0]]
    cases = [
        dict(name="groups", rule="sgd", lr=0.05, momentum=0.9, weight_decay=1e-2, groups=caffe),
        dict(name="clipped", rule="sgd", lr=0.05, weight_decay=0.0, clip_norm=1.0, groups=[[1.0, 1.0]] * 2),
        dict(name="everything with nesterov", rule="sgd", lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-2,
             clip_norm=2.0, ema=0.75, groups=caffe),
        dict(name="everything with adam", rule="adam", lr=0.01, weight_decay=1e-2, clip_norm=1.5, ema=0.5, groups=caffe),
        dict(name="everything with adamw", rule="adamw", lr=0.01, weight_decay=0.1, clip_norm=1.5, ema=0.9, groups=caffe),
        dict(name="a frozen group", rule="adamw", lr=0.01, weight_decay=0.1, groups=[[1.0, 1.0], [0.0, 0.0]]),
    ]  # fmt: skip
    rules = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    result = []
    for case in cases:
        weights = [uniform(length).requires_grad_() for length in (9, 4, 6)[: len(case["groups"])]]
        holder = torch.nn.ParameterList(weights)
        groups = [
            {"params": [w], "lr": case["lr"] * lr, "weight_decay": case["weight_decay"] * decay}
            for w, (lr, decay) in zip(holder, case["groups"])
        ]
        options = {key: case[key] for key in ("momentum", "nesterov") if key in case}
        optimizer = rules[case["rule"]](groups, **options)

        def average_of(average, parameter, count):
            # `count` models were averaged before: the start counts as one.
            decay = min(case["ema"], (1 + int(count)) / (10 + int(count)))
            return decay * average + (1 - decay) * parameter

        averaged = torch.optim.swa_utils.AveragedModel(holder, avg_fn=average_of) if "ema" in case else None
        if averaged:
            averaged.update_parameters(holder)
        run = {"w": [flat(w) for w in holder], "grads": [], "after": [], "average": []}
        for step in range(12):
            for w in holder:
                w.grad = uniform(w.numel()) * (0.2 if step % 3 == 2 else 1.0)
            run["grads"].append([flat(w.grad) for w in holder])
            if "clip_norm" in case:
                torch.nn.utils.clip_grad_norm_(holder.parameters(), case["clip_norm"])
            optimizer.step()
            run["after"].append([flat(w) for w in holder])
            if averaged:
                averaged.update_parameters(holder)
                run["average"].append([flat(w) for w in averaged.module])
        result.append({**case, **run})
    return result


def main() -> None:
    torch.set_num_threads(1)
    goldens = {
        "made_by": f"tests/goldens/make_ops.py, PyTorch {torch.__version__}",
        "pools": pools(),
        "cross_entropy": cross_entropy(),
        "interpolate": interpolate(),
        "sgd": sgd(),
        "adam": adam(),
    }
    # Later cases take streams behind those of the earlier ones.
    goldens["adam"] += adamw()
    goldens["cross_entropy"] += smoothed()
    goldens["updates"] = updates()
    # One case a line.
    parts = [f'"made_by": {json.dumps(goldens.pop("made_by"))}']
    for name, cases in goldens.items():
        lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
        parts.append(f'"{name}": [\n{lines}\n]')
    path = HERE / "ops.json"
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n")
    print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
