#!/usr/bin/env python3
"""Packs and unpacks made-up CIFAR-10 files, with NumPy and without, and refuses what is damaged.

    test_packing.py

Exit codes: 0 all as it should be; 1 not.
"""

import contextlib
import io
import random
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.dont_write_bytecode = True
import pack_cifar  # noqa: E402


def noise(count: int) -> bytes:
    """Every byte anything, as no picture is."""
    return bytes(random.randrange(256) for _ in range(count * pack_cifar.RECORD))


def shades(count: int) -> bytes:
    """Slow changes with edges, which the predictor is for."""
    records = bytearray()
    for image in range(count):
        records.append(image % 10)
        for colour in range(3):
            records += bytes((5 * x + 3 * y + 90 * (x > 16) + 20 * colour + random.randrange(3)) % 256 for y in range(32) for x in range(32))
    return bytes(records)


def run(*words: str) -> int:
    """The program's exit code."""
    old, sys.argv = sys.argv, ["pack_cifar.py", *words]
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return pack_cifar.main()
    finally:
        sys.argv = old


def main() -> None:
    random.seed(1)
    packed = []
    for records in [noise(3), shades(5)]:
        ways = [(pack_cifar.encode_slowly, pack_cifar.decode_slowly)]
        if pack_cifar.numpy is not None:
            ways.append((pack_cifar.encode, pack_cifar.decode))
        encoded = [encode(records) for encode, _ in ways]
        assert all(each == encoded[0] and len(each) == len(records) for each in encoded), "the ways differ"
        assert all(decode(encoded[0]) == records for _, decode in ways), "not what was packed"
        packed.append(len(pack_cifar.pack_block(records)) / len(records))
    assert packed[1] < 0.5 < packed[0], f"pictures are not packed better than noise: {packed}"

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, pieces, out = folder / "data", folder / "pieces", folder / "out"
        data.mkdir()
        for index, file in enumerate(["data_batch_1.bin", "data_batch_2.bin", "test_batch.bin"]):
            (data / file).write_bytes(noise(index + 2))
        assert run("pack", str(data), str(pieces), "--pieces", "2", "--block", "2") == 0
        files = sorted(map(str, pieces.iterdir()))
        assert len(files) == 2
        assert run("unpack", str(out), *reversed(files)) == 0
        assert {path.name: path.read_bytes() for path in out.iterdir()} == {path.name: path.read_bytes() for path in data.iterdir()}
        assert run("unpack", str(folder / "half"), files[0]) == 6 and not (folder / "half").exists()
        whole = Path(files[1]).read_bytes()
        for damaged in [whole[:-5], whole[:-40] + bytes([whole[-40] ^ 1]) + whole[-39:], b"{}\n", b""]:
            Path(files[1]).write_bytes(damaged)
            assert run("unpack", str(folder / "damaged"), *files) == 6, "a damaged piece was taken"
        (data / "test_batch.bin").write_bytes(b"short")
        assert run("pack", str(data), str(pieces)) == 6
    print("packing: round trips with " + ("and without NumPy" if pack_cifar.numpy is not None else "no NumPy here"))


if __name__ == "__main__":
    try:
        main()
    except AssertionError as error:
        print(f"test_packing.py: {error}", file=sys.stderr)
        raise
