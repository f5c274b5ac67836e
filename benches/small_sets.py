#!/usr/bin/env python3
"""Trains on ten small sets of pictures, five seeds each, with default flags, and says which runs learn.

    python3 benches/small_sets.py make FOLDER
    python3 benches/small_sets.py run FOLDER [--program target/release/nin-wgpu] [--seeds 0,1,2,3,11] [--only SET,...]
                                             [--model nin-small] [--jobs N] [--start-within SECONDS] [-- FLAG ...]
    python3 benches/small_sets.py table FOLDER

`make` draws the sets; it needs NumPy and Pillow (Debian: python3-numpy python3-pil). `run` trains what FOLDER/results.jsonl
does not have yet, a line a run; N at once (small batches keep one core busy), and none is started after so many SECONDS: the
next call goes on. `table` prints what came of it as Markdown.
A run has learned where its best weights recognise more than 85 % of the test share, which the program draws itself.
"""

import argparse
import gzip
import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

LEARNED = 0.85
PROJECT = Path(__file__).resolve().parent.parent
FASHION = ["T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


def make(root):
    import numpy as np
    from PIL import Image, ImageDraw, ImageFilter

    def write(name, number, classes, counts, picture, formats, mode="RGB"):
        """One set: `picture(rng, class)` gives a Pillow image."""
        folder = root / name
        shutil.rmtree(folder, ignore_errors=True)
        rng = np.random.default_rng(number)
        for index, (label, count) in enumerate(zip(classes, counts)):
            (folder / label).mkdir(parents=True)
            for i in range(count):
                image = picture(rng, index).convert(mode)
                image.save(folder / label / f"IMG_{i:04d}.{formats[i % len(formats)]}")

    def whole(rng, least, most):
        return int(rng.integers(least, most + 1))

    def noise(rng, size, cell):
        """Coloured clouds."""
        cells = [side // cell + 2 for side in reversed(size)]
        image = Image.fromarray(rng.integers(0, 255, (*cells, 3)).astype(np.uint8))
        return np.asarray(image.resize(size, Image.BICUBIC)).astype(float)

    def tinted(rng, index):
        size = (whole(rng, 20, 300), whole(rng, 20, 300))
        colour = np.array([(200, 40, 40), (40, 170, 60), (40, 60, 200)][index])
        return Image.fromarray((noise(rng, size, 6) * 0.5 + colour * 0.5).clip(0, 255).astype(np.uint8))

    def shape(rng, index, side, ink, paper, width=0):
        """Circle, square, triangle or cross somewhere in the picture; filled, or drawn with a line."""
        image = Image.new("RGB", (side, side), paper)
        draw = ImageDraw.Draw(image)
        half = side * rng.uniform(0.18, 0.32)
        x, y = (rng.uniform(half + 1, side - half - 1) for _ in range(2))
        style = {"outline": ink, "width": width} if width else {"fill": ink}
        if index == 0:
            draw.ellipse((x - half, y - half, x + half, y + half), **style)
        elif index == 1:
            draw.rectangle((x - half, y - half, x + half, y + half), **style)
        elif index == 2:
            corners = [(x, y - half), (x + half, y + half), (x - half, y + half)]
            if width:
                draw.line([*corners, corners[0]], fill=ink, width=width)
            else:
                draw.polygon(corners, fill=ink)
        else:
            thick = width or max(2, int(half / 3))
            draw.line((x - half, y - half, x + half, y + half), fill=ink, width=thick)
            draw.line((x - half, y + half, x + half, y - half), fill=ink, width=thick)
        return image

    def grey(level):
        return (level, level, level)

    def colour_shapes(rng, index):
        ink = tuple(whole(rng, 0, 160) for _ in range(3))
        return shape(rng, index, whole(rng, 40, 90), ink, tuple(whole(rng, 200, 255) for _ in range(3)))

    def light_on_dark(rng, index):
        return shape(rng, [0, 3][index], 48, grey(whole(rng, 180, 255)), grey(whole(rng, 0, 40)))

    def drawings(rng, index):
        return shape(rng, index, 64, grey(whole(rng, 0, 60)), grey(255), width=whole(rng, 3, 5))

    def textures(rng, index):
        w, h = whole(rng, 50, 160), whole(rng, 50, 160)
        y, x = np.mgrid[0:h, 0:w] / min(w, h)
        phase, waves = rng.uniform(0, 6.3), rng.uniform(3, 6)
        fields = [
            lambda: np.sin(6.3 * waves * x + phase),
            lambda: np.sin(6.3 * waves * y + phase),
            lambda: np.sign(np.sin(6.3 * waves * x + phase) * np.sin(6.3 * waves * y + phase)),
            lambda: rng.normal(0, 0.6, (h, w)),
            lambda: np.hypot(x - 0.5, y - 0.5) * 2 - 1,
        ]
        field = fields[index]() * rng.uniform(60, 110) + rng.uniform(110, 145) + rng.normal(0, 8, (h, w))
        return Image.fromarray(field.clip(0, 255).astype(np.uint8))

    def scenes(rng, index):
        """What holiday pictures look like from far away: a coast, a wood, a town at night, a wall of bricks."""
        w, h = (whole(rng, 120, 240), whole(rng, 90, 180))
        image = Image.new("RGB", (w, h))
        draw = ImageDraw.Draw(image)
        horizon = int(h * rng.uniform(0.35, 0.65))
        if index == 0:
            draw.rectangle((0, 0, w, horizon), fill=(150 + whole(rng, -20, 40), 190 + whole(rng, -20, 40), 235))
            draw.rectangle((0, horizon, w, h), fill=(30, 90 + whole(rng, -20, 30), 150 + whole(rng, -20, 30)))
        elif index == 1:
            draw.rectangle((0, 0, w, h), fill=(50, 90 + whole(rng, -20, 30), 45))
            for _ in range(whole(rng, 6, 14)):
                x = whole(rng, 0, w)
                draw.rectangle((x, 0, x + whole(rng, 4, 12), h), fill=(70 + whole(rng, -15, 15), 50, 30))
        elif index == 2:
            draw.rectangle((0, 0, w, h), fill=(10, 10, 25))
            for _ in range(whole(rng, 30, 80)):
                x, y = whole(rng, 0, w), whole(rng, horizon // 2, h)
                draw.rectangle((x, y, x + 3, y + 3), fill=(250, 220, whole(rng, 80, 180)))
        else:
            draw.rectangle((0, 0, w, h), fill=(190, 180, 170))
            brick, row = whole(rng, 24, 36), whole(rng, 10, 16)
            for line, y in enumerate(range(0, h, row)):
                for x in range(-(line % 2) * brick // 2, w, brick):
                    draw.rectangle((x, y, x + brick - 3, y + row - 3), fill=(150 + whole(rng, -25, 25), 70, 50))
        pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(1))).astype(float)
        return Image.fromarray((pixels * rng.uniform(0.7, 1.15) + noise(rng, (w, h), 3) * 0.15 - 19).clip(0, 255).astype(np.uint8))

    def idx(name):
        data = gzip.decompress((PROJECT / "assets/fashion-mnist-mini" / name).read_bytes())
        dimensions = [int.from_bytes(data[at : at + 4], "big") for at in range(4, 4 + 4 * data[3], 4)]
        return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(dimensions)

    images, labels = idx("train-images-idx3-ubyte.gz"), idx("train-labels-idx1-ubyte.gz")

    def fashion(name, number, chosen, counts, invert, formats):
        left = [iter(images[labels == label]) for label in chosen]

        def picture(_, index):
            image = next(left[index])
            return Image.fromarray(255 - image if invert else image)

        write(name, number, [FASHION[label] for label in chosen], counts, picture, formats, mode="L")

    every = ["png", "jpg", "webp", "gif", "bmp", "tif"]
    write("tinted", 5, ["red car", "green tree", "blue sea"], [60] * 3, tinted, every)
    write("tinted-55", 6, ["red car", "green tree", "blue sea"], [55] * 3, tinted, every)
    write("shapes-colour", 7, ["circle", "square", "triangle"], [120] * 3, colour_shapes, ["png", "jpg"])
    write("light-on-dark", 8, ["circle", "cross"], [30] * 2, light_on_dark, ["png"], mode="L")
    write("drawings", 9, ["circle", "square", "triangle", "cross"], [150] * 4, drawings, ["gif", "bmp"], mode="L")
    write("textures", 10, ["upright", "level", "checked", "grainy", "round"], [60] * 5, textures, ["jpg"], mode="L")
    write("scenes", 11, ["coast", "wood", "night", "wall"], [80, 200, 40, 60], scenes, ["jpg", "webp"])
    fashion("fashion-2", 12, [1, 8], [60] * 2, False, ["png"])
    fashion("fashion-3", 13, [1, 7, 8], [30, 200, 80], True, ["png", "bmp"])
    fashion("fashion-5", 14, [0, 1, 5, 8, 9], [200] * 5, False, ["png"])


def sets(root):
    return sorted(path.name for path in root.iterdir() if path.is_dir() and path.name != "runs")


def results(root):
    file = root / "results.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def run(root, options):
    done = {(line["set"], line["model"], line["seed"]) for line in results(root)}
    names = options.only.split(",") if options.only else sets(root)
    wanted = [(name, int(seed)) for seed in options.seeds.split(",") for name in names]
    started = time.monotonic()

    def train_one(which):
        if time.monotonic() - started > options.start_within:
            return
        line = json.dumps(train(root, options, *which))
        with open(root / "results.jsonl", "a") as file:
            file.write(line + "\n")
        print(line, flush=True)

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(train_one, [(name, seed) for name, seed in wanted if (name, options.model, seed) not in done]))


def train(root, options, name, seed):
    out = root / "runs" / f"{options.model}-{name}-{seed}"
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(exist_ok=True)
    command = [options.program, "train", "--model", options.model, "--data", str(root / name), "--seed", str(seed)]
    ran = subprocess.run([*command, "--out", str(out), "--no-report", *options.flags], capture_output=True, text=True)
    metrics = out / "metrics.jsonl"
    lines = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
    epochs = [line for line in lines if "test_acc" in line]
    notes = ran.stderr.splitlines()
    return {
        "set": name,
        "model": options.model,
        "seed": seed,
        "code": ran.returncode,
        "best": max((line["test_acc"] for line in epochs), default=0.0),
        "last": epochs[-1]["test_acc"] if epochs else 0.0,
        "last_loss": epochs[-1]["test_loss"] if epochs else None,
        "epochs": len(epochs),
        "seconds": round(sum(line["seconds"] for line in epochs), 1),
        "went_back": sum("going on from" in note for note in notes),
        "error": next((note for note in notes if note.startswith("error")), ""),
        "at": time.strftime("%Y-%m-%dT%H:%M:%S"),
    }


def table(root):
    lines = results(root)
    seeds = sorted({line["seed"] for line in lines})
    print("| set | pictures a class | model | " + " | ".join(f"seed {seed}" for seed in seeds) + " | epochs | went back | seconds a run |")
    print("|---|---|---|" + "---|" * (len(seeds) + 3))
    for name, model in sorted({(line["set"], line["model"]) for line in lines}):
        of = {line["seed"]: line for line in lines if (line["set"], line["model"]) == (name, model)}
        counts = [str(sum(1 for _ in folder.iterdir())) for folder in sorted((root / name).iterdir())]
        cells = []
        for seed in seeds:
            line = of.get(seed)
            text = "" if line is None else f"{line['best']:.1%}, last {line['last']:.1%}"
            cells.append(text if line is None or learned(line) else f"**{text}, exit {line['code']}**")
        went_back, seconds = sum(line["went_back"] for line in of.values()), sum(line["seconds"] for line in of.values()) / len(of)
        epochs = "/".join(sorted({str(line["epochs"]) for line in of.values()}))
        print(f"| {name} | {', '.join(counts)} | {model} | {' | '.join(cells)} | {epochs} | {went_back} | {seconds:.0f} |")
    print(f"\n{sum(map(learned, lines))} of {len(lines)} learn: over {LEARNED:.0%} of the test share with the best weights, and exit code 0.")


def learned(line):
    return line["code"] == 0 and line["best"] > LEARNED


def main():
    words, _, flags = " ".join(sys.argv[1:]).partition(" -- ")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["make", "run", "table"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--program", default=str(PROJECT / "target/release/nin-wgpu"))
    parser.add_argument("--seeds", default="0,1,2,3,11")
    parser.add_argument("--only")
    parser.add_argument("--model", default="nin-small")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--start-within", type=float, default=float("inf"))
    options = parser.parse_args(words.split())
    options.flags = flags.split()
    if options.what == "make":
        make(options.folder)
    elif options.what == "run":
        run(options.folder, options)
    else:
        table(options.folder)


if __name__ == "__main__":
    main()
