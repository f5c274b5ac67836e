#!/usr/bin/env python3
"""Writes whitening.json: contrast normalisation and ZCA whitening of a few small images, by NumPy in double precision.

    /usr/bin/python3 tests/goldens/make_whitening.py

Definitions: pylearn2's global_contrast_normalize (scale 55, the mean subtracted, the norm as divisor) and its ZCA (covariance
divided by the number of images, filter bias 0.1), flattened in the order channel, row, column.
"""

import json
import pathlib

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
SHAPE = (3, 3, 2)
IMAGES = 40

random = np.random.default_rng(7)
smooth = random.integers(0, 256, (IMAGES, 1, 3, 2)) * 0.7 + random.integers(0, 77, (IMAGES, *SHAPE))
images = smooth.astype(np.uint8)
images[5] = 90  # of one colour

x = images.reshape(IMAGES, -1) / 255.0
x = x - x.mean(axis=1, keepdims=True)
norm = np.sqrt((x**2).sum(axis=1, keepdims=True))
x = np.where(norm > 1e-3, 55.0 * x / np.maximum(norm, 1e-3), 0.0)

mean = x.mean(axis=0)
covariance = (x - mean).T @ (x - mean) / IMAGES
values, vectors = np.linalg.eigh(covariance)
matrix = (vectors / np.sqrt(values + 0.1)) @ vectors.T

goldens = {
    "made_by": f"make_whitening.py, NumPy {np.__version__}",
    "shape": SHAPE,
    "images": images.transpose(0, 2, 3, 1).reshape(IMAGES, -1).tolist(),
    "mean": mean.round(12).tolist(),
    "matrix": matrix.round(12).tolist(),
    "whitened": ((x[:3] - mean) @ matrix.T).round(12).tolist(),
    "variances": values.round(9).tolist(),
}
lines = [f'"{name}": {json.dumps(value)}' for name, value in goldens.items()]
(HERE / "whitening.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
