#!/usr/bin/env python3
"""Writes onnx.json: updates by ONNX's operators Momentum and Adam.

    python3 tests/goldens/make_onnx.py        (PyPI: onnx, 1.23 or newer; seconds)

Contents, a list of cases
    name     of ONNX's node test, or of a run of 12 updates with gradients from philox.py, by ONNX's ReferenceEvaluator
    op       "Momentum" or "Adam", with its attributes: norm_coefficient, alpha, beta, and mode or epsilon
    rate     learning rate; t: count of the first update, which grows by one with each (0: none came before, and the first is
             not corrected)
    x, v, h  parameters and state at the start; node tests with several tensors have them one behind the other
    grads, after, after_v: gradients of each update; parameters and first moments behind it
"""

import json
import pathlib
import warnings

import numpy as np
import onnx
from onnx import helper
from onnx.backend.test.loader import load_model_tests
from onnx.reference import ReferenceEvaluator

from philox import words

HERE = pathlib.Path(__file__).resolve().parent
TESTS = ["test_momentum", "test_nesterov_momentum", "test_momentum_multiple", "test_adam", "test_adam_multiple"]
TRAINING = "ai.onnx.preview.training"


def attributes(node) -> dict:
    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in found.items()}


def flat(arrays) -> list[float]:
    return [float(v) for array in arrays for v in np.asarray(array, np.float32).reshape(-1)]


def node_tests() -> list[dict]:
    cases = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tests = {test.name: test for test in load_model_tests(kind="node")}
    for name in TESTS:
        node = tests[name].model.graph.node[0]
        inputs, outputs = tests[name].data_sets[0]
        parts = 4 if node.op_type == "Adam" else 3
        count = (len(inputs) - 2) // parts
        x, g, v, *h = (flat(inputs[2 + part * count : 2 + (part + 1) * count]) for part in range(parts))
        cases.append(
            {"name": name, "op": node.op_type, **attributes(node), "rate": float(np.float32(inputs[0])), "t": int(inputs[1]),
             "x": x, "v": v, "h": h[0] if h else [], "grads": [g], "after": [flat(outputs[:count])],
             "after_v": [flat(outputs[count : 2 * count])]}
        )  # fmt: skip
    return cases


def run(name: str, op: str, **settings) -> dict:
    letters = "XGVH" if op == "Adam" else "XGV"
    node = helper.make_node(op, ["R", "T", *letters], ["Y", *(f"{letter}2" for letter in letters[2:])], domain=TRAINING, **settings)
    kind = onnx.TensorProto
    values = [helper.make_tensor_value_info("R", kind.FLOAT, []), helper.make_tensor_value_info("T", kind.INT64, [])]
    values += [helper.make_tensor_value_info(letter, kind.FLOAT, [8]) for letter in letters]
    outputs = [helper.make_tensor_value_info(output, kind.FLOAT, [8]) for output in node.output]
    graph = helper.make_graph([node], name, values, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid(TRAINING, 1), helper.make_opsetid("", 17)])
    evaluator = ReferenceEvaluator(model)

    def numbers(stream: int) -> np.ndarray:
        return (words(8, (stream, 0, 0), (9, 0)) >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)

    x, state, rate = numbers(100), [np.zeros(8, np.float32) for _ in letters[2:]], np.float32(0.05)
    case = {"name": name, "op": op, **attributes(node), "rate": float(rate), "t": 1, "x": flat([x]), "v": flat([state[0]]),
            "h": flat(state[1:]), "grads": [], "after": [], "after_v": []}  # fmt: skip
    for t in range(1, 13):
        g = numbers(t)
        x, *state = evaluator.run(None, {"R": rate, "T": np.int64(t), "X": x, "G": g, **dict(zip(letters[2:], state))})
        case["grads"].append(flat([g]))
        case["after"].append(flat([x]))
        case["after_v"].append(flat([state[0]]))
    return case


def main() -> None:
    cases = node_tests()
    # beta 1: from the second update on ONNX multiplies gradients by it, which PyTorch's momentum has no word for.
    cases.append(run("standard", "Momentum", norm_coefficient=0.01, alpha=0.9, beta=1.0, mode="standard"))
    cases.append(run("nesterov", "Momentum", norm_coefficient=0.001, alpha=0.9, beta=1.0, mode="nesterov"))
    # The two add epsilon before and behind the correction: here it is too small to matter.
    cases.append(run("adam", "Adam", norm_coefficient=0.01, alpha=0.9, beta=0.999, epsilon=1e-12))
    path = HERE / "onnx.json"
    path.write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
    print(f"{path.name}: {path.stat().st_size} bytes, ONNX {onnx.__version__}")


if __name__ == "__main__":
    main()
