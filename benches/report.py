#!/usr/bin/env python3
"""Collects and prints measurements; compare.sh and gpu.sh call it. A record is one JSON object a line.

    report.py add RESULTS.jsonl --from bench|peer FILE [--set KEY=VALUE ...]
        appends FILE's measurements: `nin-wgpu bench --json`'s document, or the lines of a peer
    report.py compare RESULTS.jsonl     prints Markdown: images/s, and ours/theirs for each pair of runs
    report.py gpu RESULTS.jsonl         prints Markdown: what gpu.sh measured, and what it did not (gpu/summary.py)
    report.py insert DOCUMENT.md MARKER FILE
        puts FILE between <!-- MARKER:begin --> and <!-- MARKER:end --> of the document

Needs Python 3.8 and nothing else. Exit codes: 0 done; 1 failed; 2 usage; 6 FILE is not what it should be.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

OURS = "nin-wgpu"
PRECISIONS = ["f32", "tf32", "mixed"]
# What of ours a peer's precision is held against: TF32 is what a user of f32 on that GPU may choose instead.
OUR_PRECISION = {"f32": "f32", "tf32": "f32", "mixed": "mixed"}


def read(path: str) -> list[dict]:
    """The records; a line that a killed program left half written is left out."""
    records = []
    for line in Path(path).read_text().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def append(path: str, records: list[dict]) -> None:
    old = Path(path).read_bytes() if Path(path).exists() else b""
    with open(path, "a") as file:
        if old and not old.endswith(b"\n"):
            file.write("\n")
        file.writelines(json.dumps(record) + "\n" for record in records)


def from_bench(text: str) -> dict:
    """The common form of `nin-wgpu bench --json`'s document."""
    bench = json.loads(text)
    times = bench["ms_per_step"]
    kept = ["driver", "gflops", "first_step_s", "peak_gpu_bytes", "host_ms_per_step", "layers", "roofline"]
    kept += ["matrix_units", "compile_s", "fallback"]
    return {
        "peer": OURS,
        "device": bench["adapter"],
        **{key: bench[key] for key in ["model", "mode", "batch_size", "precision", "images_per_s"]},
        "ms_per_step": times["median"],
        "ms_p10": times["p10"],
        "ms_p90": times["p90"],
        **{key: bench[key] for key in kept if bench.get(key) not in (None, [], "")},
    }


def add(options) -> int:
    extra = dict(word.split("=", 1) for word in options.set)
    try:
        if options.source == "bench":
            records = [from_bench(Path(options.file).read_text())]
        else:
            records = read(options.file)
    except (ValueError, KeyError, TypeError) as error:
        print(f"report.py: {options.file} is not the output of `nin-wgpu bench --json`: {error!r}", file=sys.stderr)
        return 6
    append(options.results, [{**record, **extra} for record in records])
    return 0


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    lines = [head, [":--"] + ["--:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def number(value: float | None) -> str:
    if value is None:
        return "–"
    digits = 0 if value >= 1000 else 1 if value >= 100 else 2
    return f"{value:,.{digits}f}"


def case_of(record: dict) -> tuple:
    return record["model"], record["mode"], record["batch_size"]


def order(record: dict) -> tuple:
    models = ["nin", "nin-cifar", "nin-small"]
    model = record["model"]
    position = models.index(model) if model in models else len(models)
    return position, model, record["mode"] != "train", record["batch_size"]


def compare_table(records: list[dict]) -> str:
    """Ours and every peer by case; ratios are medians over pairs of runs made one after the other."""
    cases = {}
    for record in records:
        if "peer" in record and "model" in record:
            cases.setdefault((order(record), case_of(record)), []).append(record)
    rows, skips = [], {}
    for (_, (model, mode, batch)), runs in sorted(cases.items(), key=lambda item: item[0]):
        groups = {}
        for run in runs:
            if "skipped" in run:
                skips.setdefault((run["peer"], run["precision"], run["skipped"]), set()).add(f"{model} {mode} {batch}")
            else:
                groups.setdefault((run["peer"] != OURS, run["peer"], PRECISIONS.index(run["precision"])), []).append(run)
        for (is_peer, peer, precision), group in sorted(groups.items()):
            rates = [run["images_per_s"] for run in group]
            ratio = None
            if is_peer:
                wanted = OUR_PRECISION[PRECISIONS[precision]]
                ours = {r.get("pair"): r for r in runs if r["peer"] == OURS and "skipped" not in r and r["precision"] == wanted}
                ratios = [ours[run.get("pair")]["images_per_s"] / run["images_per_s"] for run in group if run.get("pair") in ours]
                ratio = statistics.median(ratios) if ratios else None
            spread = "" if len(rates) == 1 else f"{number(min(rates))} – {number(max(rates))}"
            milliseconds = statistics.median(run["ms_per_step"] for run in group)
            name = f"**{peer}**" if not is_peer else peer
            rows.append(
                [f"{model} {mode}, batch {batch}: {name}", PRECISIONS[precision], number(statistics.median(rates)), spread,
                 str(len(rates)), number(milliseconds), f"{ratio:.2f}" if ratio else ""]
            )  # fmt: skip
    head = ["case", "precision", "images/s", "from – to", "runs", "ms a step", "ours / theirs"]
    text = markdown(head, rows) if rows else "Nothing was measured."
    if skips:
        text += "\n\nNot measured:\n\n"
        for (peer, precision, reason), where in sorted(skips.items()):
            text += f"- {peer}, {precision} ({', '.join(sorted(where))}): {reason}\n"
    return text.rstrip() + "\n"


def devices(records: list[dict]) -> str:
    """What was measured on what, a line each."""
    found = {}
    for record in records:
        if "peer" in record and "images_per_s" in record:
            version = f" {record['version']}" if record.get("version") else ""
            driver = f", {record['driver']}" if record.get("driver") else ""
            found.setdefault(f"{record['peer']}{version}: {record.get('device', '?')}{driver}")
    return "".join(f"- {line}\n" for line in found)


def insert(options) -> int:
    begin, end = f"<!-- {options.marker}:begin -->", f"<!-- {options.marker}:end -->"
    text = Path(options.document).read_text()
    if text.count(begin) != 1 or text.count(end) != 1:
        print(f"report.py: {options.document} has no lines '{begin}' and '{end}'", file=sys.stderr)
        return 1
    before, rest = text.split(begin)
    after = rest.split(end)[1]
    Path(options.document).write_text(f"{before}{begin}\n{Path(options.file).read_text().strip()}\n{end}{after}")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Collects and prints measurements.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("add")
    verb.add_argument("results")
    verb.add_argument("file")
    verb.add_argument("--from", dest="source", choices=["bench", "peer"], required=True)
    verb.add_argument("--set", action="append", default=[])
    for name in ["compare", "gpu"]:
        verbs.add_parser(name).add_argument("results")
    verb = verbs.add_parser("insert")
    for name in ["document", "marker", "file"]:
        verb.add_argument(name)
    options = parser.parse_args()
    if options.verb == "compare":
        records = read(options.results)
        print(f"{devices(records)}\n{compare_table(records)}", end="")
        return 0
    if options.verb == "gpu":
        sys.path.insert(0, str(Path(__file__).resolve().parent / "gpu"))
        from summary import gpu_report

        print(gpu_report(read(options.results)), end="")
        return 0
    return {"add": add, "insert": insert}[options.verb](options)


if __name__ == "__main__":
    sys.exit(main())
