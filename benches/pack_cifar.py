#!/usr/bin/env python3
"""Packs CIFAR-10's binary files without loss into pieces that fit through a narrow door, and unpacks them.

    pack_cifar.py pack FOLDER OUT [--pieces N] [--block IMAGES]
        FOLDER's data_batch_*.bin and test_batch.bin become OUT/cifar-10.1of2.xzs, OUT/cifar-10.2of2.xzs, ...
    pack_cifar.py unpack OUT PIECE...
        all pieces, in any order, become the same files again, byte for byte

An image goes as green, red - green + 128 and blue - green + 128, each as the difference from the median-edge
predictor of JPEG-LS (Weinberger, Seroussi and Sapiro 2000; arithmetic modulo 256), compressed with xz: about 1.65 KB an
image instead of 3 KB. A piece is a line of JSON, which says what it holds, and then blocks of images, so that all
cores work. Every file's SHA-256 is checked before it gets its name.

Needs Python 3.8 with lzma. With NumPy both ways take seconds, without it an hour.
Exit codes: 0 done; 1 failed; 2 usage; 6 a file is not what it should be.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

try:
    import numpy
except ImportError:
    numpy = None

SIDE = 32
PLANE = SIDE * SIDE
RECORD = 1 + 3 * PLANE
NAMES = [f"data_batch_{n}.bin" for n in range(1, 6)] + ["test_batch.bin"]
FORMAT = "cifar-10 med xz 1"
# Bytes of noise: what helps is the byte before, not its position in a word.
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9, "lc": 4, "lp": 0, "pb": 0}]


class Malformed(Exception):
    """A file that cannot be what it is taken for."""


def med(left: int, up: int, corner: int) -> int:
    """The median-edge predictor: the median of left, up and left + up - corner."""
    low, high = (left, up) if left < up else (up, left)
    if corner >= high:
        return low
    if corner <= low:
        return high
    return left + up - corner


def predictions(planes, y: int, x: int):
    """The predictor at (y, x) for arrays [..., SIDE, SIDE, images] of int16."""
    if y == 0:
        return planes[:, 0, x - 1] if x else 0
    if x == 0:
        return planes[:, y - 1, 0]
    left, up, corner = planes[:, y, x - 1], planes[:, y - 1, x], planes[:, y - 1, x - 1]
    low, high = numpy.minimum(left, up), numpy.maximum(left, up)
    return numpy.clip(left + up - corner, low, high)


def encode(records: bytes) -> bytes:
    """Labels, then for each image its three planes of differences."""
    count = len(records) // RECORD
    if numpy is None:
        return encode_slowly(records)
    table = numpy.frombuffer(records, numpy.uint8).reshape(count, RECORD)
    red, green, blue = table[:, 1:].reshape(count, 3, SIDE, SIDE).transpose(1, 2, 3, 0)
    planes = numpy.stack([green, red - green + numpy.uint8(128), blue - green + numpy.uint8(128)]).astype(numpy.int16)
    differences = numpy.empty(planes.shape, numpy.uint8)
    for y in range(SIDE):
        for x in range(SIDE):
            differences[:, y, x] = (planes[:, y, x] - predictions(planes, y, x)).astype(numpy.uint8)
    return table[:, 0].tobytes() + differences.transpose(3, 0, 1, 2).tobytes()


def decode(packed: bytes) -> bytes:
    """The inverse of `encode`."""
    count = len(packed) // RECORD
    if numpy is None:
        return decode_slowly(packed)
    table = numpy.empty((count, RECORD), numpy.uint8)
    table[:, 0] = numpy.frombuffer(packed[:count], numpy.uint8)
    stored = numpy.frombuffer(packed[count:], numpy.uint8).reshape(count, 3, SIDE, SIDE)
    differences = numpy.ascontiguousarray(stored.transpose(1, 2, 3, 0)).astype(numpy.int16)
    planes = numpy.empty_like(differences)
    for y in range(SIDE):
        for x in range(SIDE):
            planes[:, y, x] = (differences[:, y, x] + predictions(planes, y, x)) & 255
    green, red, blue = planes
    colours = numpy.stack([red + green - 128, green, blue + green - 128]).astype(numpy.uint8)
    table[:, 1:] = colours.transpose(3, 0, 1, 2).reshape(count, 3 * PLANE)
    return table.tobytes()


def neighbours(plane, at: int) -> int:
    """The predictor at a position of one plane."""
    y, x = divmod(at, SIDE)
    if y == 0:
        return plane[at - 1] if x else 0
    if x == 0:
        return plane[at - SIDE]
    return med(plane[at - 1], plane[at - SIDE], plane[at - SIDE - 1])


def encode_slowly(records: bytes) -> bytes:
    """`encode` without NumPy."""
    out = bytearray(records[0::RECORD])
    for start in range(0, len(records), RECORD):
        red, green, blue = (records[start + 1 + c * PLANE : start + 1 + (c + 1) * PLANE] for c in range(3))
        planes = [green, [(r - g + 128) & 255 for r, g in zip(red, green)], [(b - g + 128) & 255 for b, g in zip(blue, green)]]
        for plane in planes:
            out += bytes((plane[at] - neighbours(plane, at)) & 255 for at in range(PLANE))
    return bytes(out)


def decode_slowly(packed: bytes) -> bytes:
    """`decode` without NumPy."""
    count = len(packed) // RECORD
    out = bytearray()
    for image in range(count):
        planes = []
        for colour in range(3):
            start = count + (3 * image + colour) * PLANE
            plane = bytearray(PLANE)
            for at in range(PLANE):
                plane[at] = (packed[start + at] + neighbours(plane, at)) & 255
            planes.append(plane)
        green, red, blue = planes
        out.append(packed[image])
        out += bytes((r + g - 128) & 255 for r, g in zip(red, green))
        out += green
        out += bytes((b + g - 128) & 255 for b, g in zip(blue, green))
    return bytes(out)


def pack_block(records: bytes) -> bytes:
    return lzma.compress(encode(records), format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC32, filters=FILTERS)


def unpack_block(block: bytes) -> bytes:
    return decode(lzma.decompress(block))


def everywhere(function, items: list):
    """Results in order, from all cores where that pays."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores == 1 or len(items) == 1:
        return [function(item) for item in items]
    with ProcessPoolExecutor(min(cores, len(items))) as pool:
        return list(pool.map(function, items))


def pack(options) -> None:
    folder, out = Path(options.folder), Path(options.out)
    files, everything = [], bytearray()
    for name in NAMES:
        if not (folder / name).is_file():
            continue
        content = (folder / name).read_bytes()
        if not content or len(content) % RECORD:
            raise Malformed(f"{folder / name}: {len(content)} bytes are no whole number of records of {RECORD} bytes")
        files.append({"name": name, "records": len(content) // RECORD, "sha256": hashlib.sha256(content).hexdigest()})
        everything += content
    if not files:
        raise Malformed(f"{folder}: no {NAMES[0]} here")
    count, pieces = len(everything) // RECORD, options.pieces
    if count < pieces:
        raise Malformed(f"{folder}: {count} images are too few for {pieces} pieces")
    out.mkdir(parents=True, exist_ok=True)
    bounds = [count * piece // pieces for piece in range(pieces + 1)]
    for piece, (first, end) in enumerate(zip(bounds, bounds[1:]), 1):
        starts = range(first, end, options.block)
        blocks = everywhere(pack_block, [bytes(everything[at * RECORD : min(at + options.block, end) * RECORD]) for at in starts])
        head = {"format": FORMAT, "piece": piece, "pieces": pieces, "files": files, "blocks": [len(block) for block in blocks]}
        path = out / f"cifar-10.{piece}of{pieces}.xzs"
        path.write_bytes(json.dumps(head).encode() + b"\n" + b"".join(blocks))
        print(f"{path}: images {first} to {end - 1}, {path.stat().st_size} bytes")


def read_piece(path: Path) -> tuple[dict, list[bytes]]:
    line, _, body = path.read_bytes().partition(b"\n")
    try:
        head = json.loads(line)
        blocks, at = [], 0
        for size in head["blocks"]:
            blocks.append(body[at : at + size])
            at += size
        if head["format"] != FORMAT or at != len(body):
            raise ValueError("it is cut short or of another format")
    except (ValueError, KeyError, TypeError) as error:
        raise Malformed(f"{path}: no piece of a packed CIFAR-10: {error}") from error
    return head, blocks


def unpack(options) -> None:
    pieces = {}
    for path in map(Path, options.pieces):
        head, blocks = read_piece(path)
        pieces[head["piece"]] = head, blocks
    head = next(iter(pieces.values()))[0]
    missing = [piece for piece in range(1, head["pieces"] + 1) if piece not in pieces]
    if missing:
        raise Malformed(f"piece {', '.join(map(str, missing))} of {head['pieces']} is not among them")
    if any(other["files"] != head["files"] for other, _ in pieces.values()):
        raise Malformed("the pieces are not of the same files")
    blocks = [block for _, (_, blocks) in sorted(pieces.items()) for block in blocks]
    try:
        everything = b"".join(everywhere(unpack_block, blocks))
    except lzma.LZMAError as error:
        raise Malformed(f"a piece is damaged: {error}") from error
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    at = 0
    for entry in head["files"]:
        content = everything[at : at + entry["records"] * RECORD]
        at += len(content)
        if hashlib.sha256(content).hexdigest() != entry["sha256"]:
            raise Malformed(f"{entry['name']}: what was unpacked is not what was packed")
        part = out / (entry["name"] + ".part")
        part.write_bytes(content)
        part.replace(out / entry["name"])
    print(f"{out}: {at // RECORD} images in {len(head['files'])} files")


def main() -> int:
    parser = argparse.ArgumentParser(description="Packs CIFAR-10's binary files without loss.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("pack")
    verb.add_argument("folder")
    verb.add_argument("out")
    verb.add_argument("--pieces", type=int, default=2)
    verb.add_argument("--block", type=int, default=2500, help="images a block")
    verb = verbs.add_parser("unpack")
    verb.add_argument("out")
    verb.add_argument("pieces", nargs="+")
    options = parser.parse_args()
    if options.verb == "pack" and (options.pieces < 1 or options.block < 1):
        parser.error("--pieces and --block are 1 or more")
    try:
        {"pack": pack, "unpack": unpack}[options.verb](options)
    except Malformed as error:
        print(f"pack_cifar.py: {error}", file=sys.stderr)
        return 6
    except OSError as error:
        print(f"pack_cifar.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
