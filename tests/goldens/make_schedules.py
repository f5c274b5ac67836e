#!/usr/bin/env python3
"""Writes schedules.json: learning rates of PyTorch's schedulers.

    /usr/bin/python3 tests/goldens/make_schedules.py        (PyTorch; seconds)

Every case has 4 updates an epoch, and "rates" for each update of the run. Contents:

    step       {"lr", "epochs", "step_epochs", "gamma", "rates"}: StepLR, stepped every epoch
    cosine     {"lr", "epochs", "rates"}: CosineAnnealingLR to 0, stepped every update
    one_cycle  {"lr", "epochs", "warmup_epochs", "rates"}: OneCycleLR with its defaults, warmup_epochs / epochs its pct_start
               (0.3 where that is 0)
    plateau    {"lr", "epochs", "gamma", "patience", "losses", "rates"}: ReduceLROnPlateau with a loss for each epoch
"""

import json
import pathlib
import warnings

import torch
from torch.optim import lr_scheduler

HERE = pathlib.Path(__file__).resolve().parent
UPDATES = 4


def rates(lr: float, epochs: int, make, each_update=True, losses=None) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler = make(optimizer)
    result = []
    for epoch in range(epochs):
        for _ in range(UPDATES):
            result.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            if each_update and len(result) < epochs * UPDATES:
                scheduler.step()
        if losses:
            scheduler.step(losses[epoch])
        elif not each_update:
            scheduler.step()
    return result


def main() -> None:
    warnings.simplefilter("error")
    goldens = {"made_by": f"tests/goldens/make_schedules.py, PyTorch {torch.__version__}"}
    goldens["step"] = [
        dict(lr=lr, epochs=epochs, step_epochs=size, gamma=gamma,
             rates=rates(lr, epochs, lambda o: lr_scheduler.StepLR(o, size, gamma), each_update=False))
        for lr, epochs, size, gamma in [(0.4, 6, 2, 0.5), (0.1, 5, 3, 0.1)]
    ]  # fmt: skip
    goldens["cosine"] = [
        dict(lr=lr, epochs=epochs, rates=rates(lr, epochs, lambda o: lr_scheduler.CosineAnnealingLR(o, epochs * UPDATES)))
        for lr, epochs in [(0.4, 6), (0.05, 3)]
    ]

    def one_cycle(lr, epochs, warmup):
        share = warmup / epochs if warmup else 0.3
        return lambda o: lr_scheduler.OneCycleLR(o, lr, total_steps=epochs * UPDATES, pct_start=share, cycle_momentum=False)

    goldens["one_cycle"] = [
        dict(lr=lr, epochs=epochs, warmup_epochs=warmup, rates=rates(lr, epochs, one_cycle(lr, epochs, warmup)))
        for lr, epochs, warmup in [(0.4, 6, 0.0), (0.1, 8, 2.0), (0.05, 5, 2.5)]
    ]
    losses = [2.0, 1.5, 1.5, 1.49999, 1.6, 1.4, 1.5, 1.5, 1.5, 1.5, 1.3, 1.4, 1.4, 1.4]
    goldens["plateau"] = [
        dict(lr=0.1, epochs=len(losses), gamma=gamma, patience=patience, losses=losses,
             rates=rates(0.1, len(losses), lambda o: lr_scheduler.ReduceLROnPlateau(o, factor=gamma, patience=patience),
                         each_update=False, losses=losses))
        for gamma, patience in [(0.5, 1), (0.1, 2), (0.1, 0)]
    ]  # fmt: skip
    path = HERE / "schedules.json"
    lines = [f'"{name}": {json.dumps(cases)}' if name == "made_by" else
             f'"{name}": [\n' + ",\n".join(json.dumps(case) for case in cases) + "\n]" for name, cases in goldens.items()]  # fmt: skip
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
