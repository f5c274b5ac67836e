#!/usr/bin/env python3
"""Writes assets/fashion-mnist-mini: a small part of Fashion-MNIST, for the demo and the tests.

    python3 scripts/make_mini_fashion.py [--source DIR] [--out DIR]

Takes the first 300 training images and the first 100 test images of each class, in the data set's
own order, and writes them as gzipped IDX files under the original names. Needs nothing but Python.
The bytes written depend on the source files (and zlib's version) alone.
"""

import argparse
import gzip
import pathlib
import struct

SOURCE = pathlib.Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist
OUT = pathlib.Path(__file__).resolve().parent.parent / "assets" / "fashion-mnist-mini"
CLASSES = 10
PARTS = [("train", 300), ("t10k", 100)]  # file name prefix, images of each class


def read_idx(path: pathlib.Path, magic: int) -> tuple[tuple[int, ...], bytes]:
    """Dimensions and data of a gzipped IDX file of unsigned bytes with this magic number."""
    data = gzip.decompress(path.read_bytes())
    rank = magic & 0xFF
    found, *dims = struct.unpack_from(f">{1 + rank}I", data)
    if found != magic:
        raise SystemExit(f"{path}: magic number {found:#x}, expected {magic:#x}")
    return tuple(dims), data[4 + 4 * rank :]


def write_idx(path: pathlib.Path, magic: int, dims: tuple[int, ...], data: bytes) -> None:
    content = struct.pack(f">{1 + len(dims)}I", magic, *dims) + data
    path.write_bytes(gzip.compress(content, compresslevel=9, mtime=0))
    print(f"{path}: {dims[0]} entries, {path.stat().st_size} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=pathlib.Path, default=SOURCE)
    parser.add_argument("--out", type=pathlib.Path, default=OUT)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for prefix, per_class in PARTS:
        images_name = f"{prefix}-images-idx3-ubyte.gz"
        labels_name = f"{prefix}-labels-idx1-ubyte.gz"
        (_, height, width), pixels = read_idx(args.source / images_name, 0x803)
        _, labels = read_idx(args.source / labels_name, 0x801)
        taken = [0] * CLASSES
        chosen = []
        for index, label in enumerate(labels):
            if taken[label] < per_class:
                taken[label] += 1
                chosen.append(index)
        size = height * width
        images = b"".join(pixels[i * size : (i + 1) * size] for i in chosen)
        write_idx(args.out / images_name, 0x803, (len(chosen), height, width), images)
        write_idx(args.out / labels_name, 0x801, (len(chosen),), bytes(labels[i] for i in chosen))


if __name__ == "__main__":
    main()
