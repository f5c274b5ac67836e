#!/usr/bin/env python3
"""Writes conv_shapes.txt and pool_shapes.txt: the shapes that the kernels are tested over.

    /usr/bin/python3 tests/goldens/make_shapes.py        (PyTorch, for the pools' output sizes)

conv_shapes.txt, one convolution a line: `ic ih iw oc kh kw sh sw ph pw batch name`
pool_shapes.txt, one window a line:      `ih iw kh kw sh sw ph pw ceil oh ow name`, ceil 0 or 1, and
    oh ow the output size that PyTorch 1.13 computes

Sources: ncnn's test_convolution (its kernel, stride and padding settings, those with dilation left out,
over its channels and sizes); shapes in the manner of PyTorch's OpInfo samples; layers of well-known
networks, with channels and sizes cut so that a reference on the CPU is quick; and shapes that break
kernels: odd channels, stride beyond the kernel, padding of half a kernel and more, odd batches.
"""

import pathlib

import torch

HERE = pathlib.Path(__file__).resolve().parent
MACS_PER_SHAPE = 2_000_000
MACS_IN_ALL = 150_000_000


def pair(value) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def conv(name, ic, size, oc, kernel, stride=1, padding=0, batch=1):
    (ih, iw), (kh, kw), (sh, sw), (ph, pw) = map(pair, (size, kernel, stride, padding))
    return (ic, ih, iw, oc, kh, kw, sh, sw, ph, pw, batch, name)


def output(shape) -> tuple[int, int]:
    _, ih, iw, _, kh, kw, sh, sw, ph, pw, _, _ = shape
    return (ih + 2 * ph - kh) // sh + 1, (iw + 2 * pw - kw) // sw + 1


def macs(shape) -> int:
    ic, _, _, oc, kh, kw, _, _, _, _, batch, _ = shape
    oh, ow = output(shape)
    return batch * oh * ow * oc * ic * kh * kw


def ncnn():
    """Kernel, stride, padding over channels {1, 4, 8, 13, 16}: every pair at the smallest size."""
    settings = [
        (1, 1, 0), (1, 2, 0), (2, 1, 1), (2, 2, 1), (3, 1, 1), (3, 2, 1), (4, 1, 2), (4, 2, 1),
        (5, 1, 2), (5, 2, 2), (7, 1, 3), (7, 2, 3), (3, 1, 0), (4, 1, 1), (5, 2, 0), (7, 1, 0),
    ]  # fmt: skip
    pairs = [(1, 1), (4, 13), (13, 4), (8, 8), (8, 13), (13, 16), (16, 8), (1, 16), (16, 1), (16, 16)]
    for number, (k, s, p) in enumerate(settings):
        for i, (ic, oc) in enumerate(pairs):
            # The larger sizes take turns: each setting meets some pairs, each pair some settings.
            sizes = [(7, 9)]
            sizes += [(17, 18)] * ((i + number) % 3 == 0) + [(33, 25)] * ((i + number) % 5 == 0)
            for h, w in sizes:
                yield conv(f"ncnn-k{k}s{s}p{p}-{ic}to{oc}-{h}x{w}", ic, (h, w), oc, k, s, p)


def opinfo():
    samples = [
        (1, 3, (4, 4), 3, (3, 3), 2, 2), (2, 4, (8, 8), 2, (3, 3), (3, 2), (2, 1)),
        (1, 4, (5, 5), 1, (2, 3), 2, 1), (1, 4, (5, 5), 1, (2, 3), 1, 0), (1, 4, (5, 5), 1, (2, 3), 1, (1, 2)),
        (2, 2, (6, 6), 4, (2, 2), 2, 0), (3, 3, (12, 12), 3, (2, 2), (4, 1), (1, 0)),
        (1, 1, (1, 1), 1, (1, 1), 1, 0), (2, 3, (4, 5), 6, (4, 5), 1, 0), (1, 6, (9, 3), 5, (3, 1), (2, 1), (1, 0)),
    ]  # fmt: skip
    for number, (n, ic, size, oc, k, s, p) in enumerate(samples):
        yield conv(f"opinfo-{number}", ic, size, oc, k, s, p, n)


def networks():
    """Layers of networks: kernel, stride, padding and proportions theirs, channels and sizes cut."""
    layers = [
        ("alexnet-1", 3, 51, 12, 11, 4, 2), ("alexnet-2", 12, 13, 24, 5, 1, 2), ("alexnet-3", 24, 7, 48, 3, 1, 1),
        ("alexnet-4", 48, 6, 32, 3, 1, 1), ("alexnet-5", 32, 6, 32, 3, 1, 1),
        ("vgg-1", 3, 28, 16, 3, 1, 1), ("vgg-2", 16, 20, 16, 3, 1, 1), ("vgg-3", 32, 12, 32, 3, 1, 1),
        ("vgg-4", 64, 6, 64, 3, 1, 1), ("vgg-5", 64, 4, 64, 3, 1, 1),
        ("googlenet-stem", 3, 40, 16, 7, 2, 3), ("googlenet-reduce", 48, 14, 16, 1, 1, 0),
        ("googlenet-3a-1x1", 192, 7, 64, 1, 1, 0), ("googlenet-3a-3x3", 24, 10, 32, 3, 1, 1),
        ("googlenet-3a-5x5", 16, 10, 32, 5, 1, 2), ("googlenet-4b-1x1", 480, 4, 192, 1, 1, 0),
        ("googlenet-4b-3x3", 48, 7, 52, 3, 1, 1), ("googlenet-4b-5x5", 16, 9, 48, 5, 1, 2),
        ("googlenet-5b-1x1", 832, 2, 256, 1, 1, 0), ("googlenet-pool-proj", 192, 7, 32, 1, 1, 0),
        ("resnet50-stem", 3, 42, 16, 7, 2, 3), ("resnet50-2-reduce", 64, 10, 16, 1, 1, 0),
        ("resnet50-2-3x3", 16, 14, 16, 3, 1, 1), ("resnet50-2-expand", 16, 14, 64, 1, 1, 0),
        ("resnet50-3-shortcut", 64, 14, 128, 1, 2, 0), ("resnet50-3-3x3s2", 32, 14, 32, 3, 2, 1),
        ("resnet50-3-expand", 32, 7, 128, 1, 1, 0), ("resnet50-4-shortcut", 128, 7, 256, 1, 2, 0),
        ("resnet50-4-3x3s2", 64, 7, 64, 3, 2, 1), ("resnet50-5-reduce", 512, 3, 128, 1, 1, 0),
        ("resnet50-5-3x3", 64, 4, 64, 3, 1, 1), ("resnet50-5-expand", 128, 3, 512, 1, 1, 0),
        ("nin-1", 1, 67, 24, 11, 4, 0), ("nin-2", 24, 26, 24, 1, 1, 0), ("nin-3", 24, 12, 24, 5, 1, 2),
        ("nin-4", 32, 12, 64, 5, 1, 2), ("nin-5", 96, 8, 96, 1, 1, 0), ("nin-6", 64, 5, 96, 3, 1, 1),
        ("nin-7", 384, 5, 10, 3, 1, 1), ("nin-8", 10, 5, 10, 1, 1, 0), ("nin-9", 384, 5, 24, 1, 1, 0),
        ("nin-cifar-1", 3, 16, 64, 5, 1, 2), ("nin-cifar-2", 192, 7, 160, 1, 1, 0), ("nin-cifar-3", 160, 8, 96, 1, 1, 0),
        ("nin-cifar-4", 24, 8, 48, 5, 1, 2), ("nin-cifar-5", 192, 6, 192, 1, 1, 0), ("nin-cifar-6", 48, 8, 64, 3, 1, 1),
        ("nin-cifar-7", 192, 8, 10, 1, 1, 0), ("nin-imagenet-1", 3, 51, 16, 11, 4, 0),
        ("nin-small-1", 1, 28, 16, 3, 1, 1), ("nin-small-2", 16, 14, 48, 3, 1, 1), ("nin-small-3", 48, 7, 64, 3, 1, 1),
        ("lenet-1", 1, 28, 6, 5, 1, 2), ("lenet-2", 6, 14, 16, 5, 1, 0), ("mobile-stem", 3, 32, 16, 3, 2, 1),
    ]  # fmt: skip
    for name, ic, size, oc, k, s, p in layers:
        yield conv(name, ic, size, oc, k, s, p)
        small = conv(f"{name}-batch3", ic, max(k - 2 * p, (2 * size) // 5), oc, k, s, p, 3)
        yield small


def breaking():
    for c in (1, 3, 5, 7, 13, 17, 31, 33, 63, 65, 191, 193):
        yield conv(f"channels-{c}to10-3x3", c, (6, 5), 10, 3, 1, 1, 3)
        yield conv(f"channels-7to{c}-1x1", 7, (5, 4), c, 1, 1, 0, 3)
        yield conv(f"channels-{c}to{c}-1x1", c, (4, 3), c, 1)
        yield conv(f"channels-{c}to{c}-3x3", c, (2, 3) if c > 100 else (4, 5), c, 3, 1, 1)
        yield conv(f"channels-5to{c}-5x5s2", 5, (7, 8), c, 5, 2, 2)
        yield conv(f"channels-{c}to4-2x2s2", c, (6, 7), 4, 2, 2, 0, 2)
    for k, s in ((1, 2), (1, 3), (2, 3), (3, 4), (2, 5), (3, 7), (5, 6), ((1, 3), (2, 4)), ((3, 1), (4, 1))):
        label = "x".join(map(str, pair(k))) + "s" + "x".join(map(str, pair(s)))
        yield conv(f"stride-beyond-kernel-{label}", 5, (13, 16), 6, k, s)
        yield conv(f"stride-beyond-kernel-{label}-padded", 4, (12, 11), 8, k, s, (1, 1), 3)
    for k, p in ((1, 1), (2, 1), (2, 2), (3, 2), (3, 3), (3, 5), (4, 3), (5, 4), (5, 5), (7, 6), ((1, 3), (0, 2)), ((5, 2), (4, 1))):
        label = "x".join(map(str, pair(k))) + "p" + "x".join(map(str, pair(p)))
        yield conv(f"wide-padding-{label}", 3, (6, 7), 5, k, 1, p)
        yield conv(f"wide-padding-{label}-s2", 8, (5, 8), 12, k, 2, p, 3)
    for k, s, p in (((3, 1), 1, (1, 0)), ((1, 3), 1, (0, 1)), ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0)), ((2, 5), (2, 1), (1, 2)),
                    ((5, 3), (1, 2), (2, 1)), ((3, 3), (2, 1), 1), ((3, 3), (1, 3), (0, 1)), ((4, 2), (3, 2), (2, 1))):  # fmt: skip
        label = "-".join("x".join(map(str, pair(v))) for v in (k, s, p))
        yield conv(f"not-square-{label}", 6, (9, 14), 7, k, s, p, 2)
        yield conv(f"not-square-{label}-wide", 16, (5, 11), 20, k, s, p)
    for size, k, p in (((1, 1), 1, 0), ((1, 1), 3, 1), ((1, 1), 5, 2), ((2, 2), 5, 2), ((1, 9), (1, 4), 0), ((9, 1), (4, 1), 0), ((3, 3), 7, 3), ((4, 4), 4, 0), ((2, 3), 11, 5)):
        label = "x".join(map(str, size)) + "-k" + "x".join(map(str, pair(k))) + f"p{p}"
        yield conv(f"tiny-{label}", 5, size, 6, k, 1, p)
        yield conv(f"tiny-{label}-batch3", 17, size, 9, k, 1, p, 3)
    # Rows and columns that no window reaches, whose input gradient must be zero.
    for size, k, s in (((8, 8), 3, 2), ((10, 11), 2, 4), ((12, 9), 3, 5), ((20, 21), 5, 4), ((15, 13), 1, 4)):
        yield conv(f"unread-edge-{size[0]}x{size[1]}-k{k}s{s}", 6, size, 8, k, s, 0, 2)
    for batch in (3, 5, 16, 127):
        yield conv(f"batch-{batch}-1x1", 5, (3, 3), 7, 1, 1, 0, batch)
        yield conv(f"batch-{batch}-3x3", 4, (4, 4), 8, 3, 1, 1, batch)
    # Long reductions: over channels, over the window, and over positions for the weight gradient.
    yield conv("long-reduction-channels", 2048, (2, 2), 12, 1)
    yield conv("long-reduction-window", 31, (13, 13), 4, 13)
    yield conv("long-reduction-positions", 2, (61, 67), 3, 3, 1, 1, 4)


def conv_shapes():
    shapes, seen = [], set()
    for family in (ncnn, opinfo, networks, breaking):
        for shape in family():
            oh, ow = output(shape)
            if min(oh, ow) < 1 or macs(shape) > MACS_PER_SHAPE or shape[:-1] in seen:
                continue
            seen.add(shape[:-1])
            shapes.append(shape)
    return shapes


def pool_shapes():
    """Windows over sizes; a padding beyond half the kernel is no pool in PyTorch and left out."""
    settings = [
        (2, 2, 0), (3, 2, 0), (3, 2, 1), (3, 1, 1), (2, 1, 0), (2, 1, 1), (2, 3, 0), (2, 3, 1), (3, 3, 0), (3, 3, 1),
        (3, 4, 0), (3, 5, 1), (5, 2, 2), (5, 3, 1), (4, 4, 2), (4, 2, 1), (1, 1, 0), (1, 2, 0), (1, 3, 0), (8, 1, 0), (7, 7, 3),
        ((3, 2), (2, 1), (1, 0)), ((2, 3), (1, 2), (0, 1)), ((1, 4), (1, 3), (0, 2)), ((5, 1), (3, 2), (2, 0)),
    ]  # fmt: skip
    sizes = [(1, 1), (2, 2), (4, 4), (5, 7), (7, 5), (6, 6), (8, 9), (12, 12), (13, 11), (32, 32), (54, 54)]
    for k, s, p in settings:
        (kh, kw), (sh, sw), (ph, pw) = pair(k), pair(s), pair(p)
        for h, w in sizes:
            if h + 2 * ph < kh or w + 2 * pw < kw or (h * w > 900 and kh not in (2, 3)):
                continue
            image = torch.zeros(1, 1, h, w)
            floor, ceil = (
                tuple(torch.nn.functional.max_pool2d(image, (kh, kw), (sh, sw), (ph, pw), ceil_mode=mode).shape[2:])
                for mode in (False, True)
            )
            rounded_up = -(-(h + 2 * ph - kh) // sh) + 1, -(-(w + 2 * pw - kw) // sw) + 1
            label = f"k{kh}x{kw}-s{sh}x{sw}-p{ph}x{pw}-{h}x{w}"
            row = (h, w, kh, kw, sh, sw, ph, pw)
            yield *row, 0, *floor, label
            # The last window would start in the padding: PyTorch drops it.
            dropped = "-drops-window" if ceil != rounded_up else ""
            yield *row, 1, *ceil, f"{label}-ceil{dropped}"


def write(name: str, header: str, rows) -> None:
    lines = [f"# {header}", f"# written by tests/goldens/{pathlib.Path(__file__).name}"]
    lines += [" ".join(map(str, row)) for row in rows]
    (HERE / name).write_text("\n".join(lines) + "\n")


def main() -> None:
    shapes = conv_shapes()
    total = sum(map(macs, shapes))
    assert len(shapes) >= 400 and total <= MACS_IN_ALL, (len(shapes), total)
    write("conv_shapes.txt", "ic ih iw oc kh kw sh sw ph pw batch name", shapes)
    pools = list(pool_shapes())
    write("pool_shapes.txt", "ih iw kh kw sh sw ph pw ceil oh ow name", pools)
    print(f"{len(shapes)} convolutions, {total:,} multiply-adds; {len(pools)} pools, "
          f"{sum('drops' in pool[-1] for pool in pools)} of which drop a window")


if __name__ == "__main__":
    main()
