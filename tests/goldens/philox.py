"""Philox4x32-10 (Salmon et al. 2011) in numpy, the same generator as src/rng.rs and shaders/shared/rng.wgsl."""

import numpy as np

MULTIPLIER_0, MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
WEYL_0, WEYL_1 = 0x9E3779B9, 0xBB67AE85
MASK = np.uint64(0xFFFFFFFF)
SHIFT = np.uint64(32)


def philox(counter, key) -> np.ndarray:
    """Four u32 words for each counter: `counter` is four arrays or numbers, the result has shape [..., 4]."""
    c0, c1, c2, c3 = np.broadcast_arrays(*(np.asarray(c, np.uint64) for c in counter))
    k0, k1 = int(key[0]), int(key[1])
    for _ in range(10):
        product_0, product_1 = c0 * MULTIPLIER_0, c2 * MULTIPLIER_1
        c0, c1, c2, c3 = (
            (product_1 >> SHIFT) ^ c1 ^ np.uint64(k0),
            product_1 & MASK,
            (product_0 >> SHIFT) ^ c3 ^ np.uint64(k1),
            product_0 & MASK,
        )
        k0, k1 = (k0 + WEYL_0) & 0xFFFFFFFF, (k1 + WEYL_1) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def words(count: int, stream: tuple[int, int, int], key: tuple[int, int]) -> np.ndarray:
    """`count` u32 words: word j is philox([j / 4, *stream], key)[j % 4]."""
    counters = np.arange((count + 3) // 4)
    return philox((counters, *stream), key).reshape(-1)[:count]


# Known answers of the Random123 distribution.
assert philox((0, 0, 0, 0), (0, 0)).tolist() == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
assert philox((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0)).tolist() == [
    0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1,
]  # fmt: skip
