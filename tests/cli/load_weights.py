"""Loads weights of nin-small into the nested nn.Sequential that their names come from and prints the
probabilities of one picture as a JSON list.

    python3 load_weights.py WEIGHTS.safetensors PICTURE.pgm

Needs PyTorch alone: the file is read by hand, so the format is proved as well.
"""

import json
import struct
import sys

import torch
from torch import nn


def read_safetensors(path):
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = file.read()
    metadata = header.pop("__metadata__")
    tensors = {}
    for name, entry in header.items():
        assert entry["dtype"] == "F32", entry
        begin, end = entry["data_offsets"]
        tensors[name] = torch.frombuffer(bytearray(data[begin:end]), dtype=torch.float32).reshape(entry["shape"])
    return tensors, metadata


def read_pgm(path):
    with open(path, "rb") as file:
        magic, size, most = (file.readline().split() for _ in range(3))
        width, height = map(int, size)
        assert magic == [b"P5"] and most == [b"255"]
        return torch.frombuffer(bytearray(file.read()), dtype=torch.uint8).reshape(1, 1, height, width).float() / 255


def block(channels, outputs, kernel, padding):
    layers = []
    for width in outputs:
        layers += [nn.Conv2d(channels, width, kernel, padding=padding), nn.ReLU()]
        channels, kernel, padding = width, 1, 0
    return nn.Sequential(*layers)


def nin_small(classes):
    return nn.Sequential(
        block(1, [16, 16, 16], 5, 2),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        block(16, [64, 64, 32], 3, 1),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.Dropout(),
        block(32, [128, 128, classes], 3, 1),
        nn.AdaptiveAvgPool2d((1, 1)),
        nn.Flatten(),
    )


def main():
    tensors, metadata = read_safetensors(sys.argv[1])
    assert metadata["model"] == "nin-small", metadata["model"]
    net = nin_small(len(json.loads(metadata["classes"])))
    net.load_state_dict(tensors, strict=True)
    net.eval()
    preprocess = json.loads(metadata["preprocess"])
    picture = read_pgm(sys.argv[2])
    assert list(picture.shape[2:]) == preprocess["size"]
    mean, std = (torch.tensor(preprocess[key]).reshape(1, -1, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        print(json.dumps(net((picture - mean) / std).softmax(1)[0].tolist()))


main()
