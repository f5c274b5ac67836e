#!/usr/bin/env python3
"""Writes assets/samples: pictures for `make demo`, none of them from the training set.

    python3 scripts/make_samples.py          (needs numpy and Pillow)

Ten are the first test image of each class of Fashion-MNIST, unchanged (28x28, grey). Two are drawn
here: a T-shirt and a pair of trousers, in colour on white like a shop's photo (600x800).
"""

import gzip
import pathlib

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SOURCE = pathlib.Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist
OUT = pathlib.Path(__file__).resolve().parent.parent / "assets" / "samples"
CLASSES = [
    "t-shirt", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle-boot",
]  # fmt: skip
SIZE = (600, 800)  # width, height of a drawing
OVERSAMPLING = 3  # drawn larger, then shrunk, for smooth edges


def test_images() -> None:
    """The first test image of each class."""
    pixels = gzip.decompress((SOURCE / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((SOURCE / "t10k-labels-idx1-ubyte.gz").read_bytes())[8:]
    for label, name in enumerate(CLASSES):
        index = labels.index(label)
        image = Image.frombytes("L", (28, 28), pixels[index * 784 : (index + 1) * 784])
        image.save(OUT / f"test-{index:05}-{name}.png", optimize=True)


def curve(points: list[tuple[float, float]], steps: int = 24) -> list[tuple[float, float]]:
    """A smooth line (Catmull-Rom) through `points`."""
    ends = [points[0], *points, points[-1]]
    line = []
    for a, b, c, d in zip(ends, ends[1:], ends[2:], ends[3:]):
        for step in range(steps):
            t = step / steps
            line.append(
                tuple(
                    0.5 * (2 * q + (r - p) * t + (2 * p - 5 * q + 4 * r - s) * t * t
                           + (3 * q - p - 3 * r + s) * t**3)
                    for p, q, r, s in zip(a, b, c, d)
                )
            )  # fmt: skip
    return line + [points[-1]]


def mirrored(half: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """An outline symmetric about the vertical middle, from its right half (top to bottom)."""
    return half + [(SIZE[0] - x, y) for x, y in reversed(half)]


def scaled(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(x * OVERSAMPLING, y * OVERSAMPLING) for x, y in points]


def draw(name: str, outline, seams, shades, colour, folds) -> None:
    """Fills `outline` with `colour`, shaded by `folds(x, y)` in [0, 1] coordinates.

    `shades` are polygons darkened by a factor, `seams` are thin darker lines.
    """
    size = (SIZE[0] * OVERSAMPLING, SIZE[1] * OVERSAMPLING)
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).polygon(scaled(outline), fill=255)
    x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    light = folds(x, y)

    shadow = Image.new("L", size, 255)
    pen = ImageDraw.Draw(shadow)
    for polygon, factor in shades:
        pen.polygon(scaled(polygon), fill=round(255 * factor))
    for line in seams:
        pen.line(scaled(line), fill=150, width=3 * OVERSAMPLING)
    light *= np.asarray(shadow.filter(ImageFilter.GaussianBlur(2 * OVERSAMPLING))) / 255

    # Cloth turns away from the light near its edges.
    inside = np.asarray(mask.filter(ImageFilter.GaussianBlur(14 * OVERSAMPLING))) / 255
    light *= 0.72 + 0.28 * np.clip((inside - 0.5) * 2, 0, 1)

    cloth = np.clip(np.asarray(colour) * light[..., None], 0, 255).astype(np.uint8)
    page = Image.new("RGB", size, (255, 255, 255))
    page.paste(Image.fromarray(cloth), (0, 0), mask)
    page.resize(SIZE, Image.LANCZOS).save(OUT / name, optimize=True)


def t_shirt() -> None:
    neck = curve([(300, 128), (338, 118), (366, 82)])
    sleeve = [(366, 82), (430, 100), (480, 132), (584, 300), (478, 352), (446, 296)]
    side = curve([(446, 296), (440, 440), (446, 600), (452, 732)])
    hem = curve([(452, 732), (380, 744), (300, 746)])
    outline = mirrored(neck + sleeve + side + hem)
    collar = mirrored(curve([(300, 152), (352, 138), (384, 88)]))
    seams = [
        collar,
        curve([(452, 118), (446, 200), (446, 296)]),
        curve([(148, 118), (154, 200), (154, 296)]),
        [(470, 336), (574, 286)],
        [(130, 336), (26, 286)],
        curve([(148, 716), (300, 730), (452, 716)]),
    ]
    back = [mirrored(curve([(300, 128), (338, 118), (366, 82)])) + [(234, 82), (366, 82)]]
    draw(
        "drawing-t-shirt.png",
        outline,
        seams,
        [(polygon, 0.6) for polygon in back],
        (64, 92, 158),
        lambda x, y: 1
        + 0.10 * np.sin(21 * x + 5 * y) * y
        + 0.06 * np.sin(37 * x - 9 * y)
        - 0.12 * np.abs(x - 0.45),
    )


def trousers() -> None:
    half = [(300, 44), (410, 44), (416, 92)]
    outer = curve([(416, 92), (440, 220), (446, 420), (430, 768)])
    inner = [(336, 770)] + curve([(336, 770), (324, 520), (312, 330), (300, 268)])
    outline = mirrored(half + outer + inner)
    seams = [
        curve([(184, 92), (300, 98), (416, 92)]),
        curve([(300, 96), (302, 180), (300, 268)]),
        curve([(414, 110), (392, 150), (362, 160)])[:-1],
        curve([(186, 110), (208, 150), (238, 160)])[:-1],
        [(338, 752), (430, 750)],
        [(170, 750), (262, 752)],
    ]
    crease = [
        (curve([(368, 150), (374, 420), (380, 760), (388, 760), (384, 420), (376, 150)]), 0.88),
        (curve([(232, 150), (226, 420), (220, 760), (212, 760), (216, 420), (224, 150)]), 0.88),
        ([(286, 270), (314, 270), (322, 420), (300, 300), (278, 420)], 0.8),
    ]
    draw(
        "drawing-trousers.png",
        outline,
        seams,
        crease,
        (92, 84, 74),
        lambda x, y: 1.05
        + 0.08 * np.sin(9 * x + 2 * y)
        + 0.05 * np.sin(60 * y + 8 * x) * (y > 0.7)
        - 0.10 * y,
    )


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    test_images()
    t_shirt()
    trousers()
    for path in sorted(OUT.glob("*.png")):
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
