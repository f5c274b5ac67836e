#!/usr/bin/env python3
"""What a part of gpu.sh left behind becomes records: one JSON object a line of RESULTS.jsonl.

    records.py adapter DEVICES.json --want gpu|any [--named TEXT]
        prints `name, driver` of the adapter that the program takes by itself; 3 where it is not the wanted one
    records.py machine RESULTS.jsonl --card CARD --program PROGRAM [--plan FILE] --facts KEY=VALUE ...
        appends what everything after it was measured on, and the names of all parts
    records.py done RESULTS.jsonl --card CARD --program PROGRAM
        prints the parts that are done on this card by this program, a line each
    records.py part RESULTS.jsonl --name NAME --kind KIND --code N --seconds S --limit S --card CARD --program PROGRAM
                    [--output FILE] [--messages FILE] [--folder DIR] [--pair P] [--optional]
        appends what the part measured and how it ended; prints the status
    records.py note RESULTS.jsonl --name NAME --status STATUS --seconds S --card CARD --program PROGRAM [--detail TEXT]
        appends how a part without a command ended
    records.py clocks RESULTS.jsonl CLOCKS.csv
        appends the clocks during each part; a line of CLOCKS.csv is `2026/01/31 10:00:00.123, SM MHz, memory MHz, C, W, %`,
        in this machine's time zone
    records.py status RESULTS.jsonl
        prints `status<TAB>part<TAB>detail` of every part of the plan

KIND says what --output holds: bench (a document of `nin-wgpu bench --json`), peer (lines of a peer), kernels (lines of
`bench --kernels --results`; --folder is the folder of kernels), registers (lines of the program in benches/registers/),
train (--folder is the run's), text (the last line is the detail). A part ends done, failed, timed out, left (another
call goes on with it) or not there (this machine or program has no such thing). --optional: a usage error of the
program means not there.

Needs Python 3.8 and nothing else. Exit codes: 0 done; 1 failed; 2 usage; 3 not the wanted adapter.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from report import append, from_bench, read  # noqa: E402

# As the program chooses; anything else is no GPU.
TYPES = ["discrete", "integrated", "virtual"]
TIMED_OUT = (124, 137)


def lines_of(path: str | None) -> list[dict]:
    return read(path) if path and Path(path).is_file() else []


def last_line(*paths: str | None) -> str:
    """The last line that is not empty, of the first file that has one."""
    for path in paths:
        if path and Path(path).is_file():
            lines = [line.strip() for line in Path(path).read_text(errors="replace").splitlines() if line.strip()]
            if lines:
                return lines[-1][:200]
    return ""


def bench_end(options) -> tuple[str, str, list[dict]]:
    if options.code == 0:
        try:
            record = from_bench(Path(options.output).read_text())
        except (ValueError, KeyError, TypeError, OSError) as error:
            return "failed", f"the answer is no document of bench: {error!r}", []
        units = {True: ", on matrix units", False: ", no matrix units"}.get(record.get("matrix_units"), "")
        fallback = f"; fell back: {record['fallback']}" if record.get("fallback") else ""
        return "done", f"{record['ms_per_step']:.3f} ms a step{units}{fallback}", [record]
    if options.code == 2 and options.optional:
        return "not there", last_line(options.messages), []
    return "failed", last_line(options.messages), []


def peer_end(options) -> tuple[str, str, list[dict]]:
    # Lines that were printed before a failure count.
    records = [record for record in lines_of(options.output) if "peer" in record]
    measured = [record for record in records if "images_per_s" in record]
    reasons = [record["skipped"] for record in records if "skipped" in record]
    broken = [reason for reason in reasons if reason.startswith("failed")]
    if options.code == 3:
        return "not there", last_line(options.messages), records
    if options.code != 0:
        return "failed", last_line(options.messages), records
    if measured:
        detail = f"{len(measured)} cases"
        return "done", detail + (f", {len(reasons)} not measured: {(broken or reasons)[0]}" if reasons else ""), records
    if broken or not reasons:
        return "failed", broken[0] if broken else "nothing was printed", records
    return "not there", reasons[0], records


def kernels_end(options) -> tuple[str, str, list[dict]]:
    found = {line["kernel"]: line for line in lines_of(options.output) if "kernel" in line and "verdict" in line}
    records = [{"of": "kernels", **line} for line in found.values()]
    if options.code == 2:
        return "not there", last_line(options.messages), records
    wanted = {line.get("kernel") for line in lines_of(str(Path(options.folder) / "kernels.jsonl"))}
    verdicts = [line["verdict"] for line in found.values()]
    detail = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in sorted(set(verdicts), key=verdicts.index))
    if not wanted:
        return "failed", f"no kernels in {options.folder}", records
    missing = len(wanted - set(found))
    # Where time was up, another call goes on.
    if missing and options.code in (0, 8, *TIMED_OUT):
        return "left", f"{detail or 'none'}; {missing} of {len(wanted)} to go", records
    if missing:
        return "failed", f"{last_line(options.messages)} ({detail or 'none'}; {missing} of {len(wanted)} to go)", records
    return "done", detail, records


def registers_end(options) -> tuple[str, str, list[dict]]:
    records = [{"of": "registers", **line} for line in lines_of(options.output) if "kernel" in line]
    told = [record for record in records if record.get("statistics") or record.get("registers") is not None]
    errors = [record["error"] for record in records if "error" in record]
    if options.code == 3:
        return "not there", last_line(options.messages), records
    # 1: some kernels did not compile, each of which has its line.
    if options.code not in (0, 1) or not records:
        return "failed", last_line(options.messages), records
    if told:
        return "done", f"{len(told)} entry points" + (f", {len(errors)} without: {errors[0]}" if errors else ""), records
    if len(errors) == len(records):
        return "failed", f"no kernel compiles: {errors[0]}", records
    return "not there", "this driver tells nothing of its kernels", records


def train_end(options) -> tuple[str, str, list[dict]]:
    epochs = [line for line in lines_of(str(Path(options.folder) / "metrics.jsonl")) if "test_acc" in line]
    records = [{"epoch_of": options.name, **line} for line in epochs]
    detail = "no epoch yet"
    if epochs:
        best = max(epochs, key=lambda line: line["test_acc"] or 0)
        detail = f"{len(epochs)} epochs, best test accuracy {best['test_acc']:.4f} in epoch {best['epoch']}"
    if options.code == 0:
        return "done", detail, records
    if options.code == 130 and (Path(options.folder) / "state").is_dir():
        return "left", f"interrupted and saved; {detail}", records
    return "failed", f"{last_line(options.messages)}; {detail}", records


def text_end(options) -> tuple[str, str, list[dict]]:
    if options.code == 0:
        return "done", last_line(options.output, options.messages), []
    if options.code == 2 and options.optional:
        return "not there", last_line(options.messages), []
    return "failed", last_line(options.output, options.messages), []


ENDS = {"bench": bench_end, "peer": peer_end, "kernels": kernels_end, "registers": registers_end, "train": train_end, "text": text_end}


def part(options) -> int:
    status, detail, records = ENDS[options.kind](options)
    if options.code in TIMED_OUT and status == "failed":
        status, detail = "timed out", f"after {options.limit:g} s" + (f"; {detail}" if detail else "")
    on = {"card": options.card, "program": options.program}
    if options.pair:
        records = [{**record, "pair": options.pair} for record in records]
    ended = round(time.time(), 1)
    records.append({"part": options.name, "status": status, "seconds": options.seconds, "detail": detail, "ended": ended})
    append(options.results, [{**record, **on} for record in records])
    print(f"{status}\t{detail}")
    return 0


def note(options) -> int:
    record = {"part": options.name, "status": options.status, "seconds": options.seconds, "detail": options.detail}
    append(options.results, [{**record, "ended": round(time.time(), 1), "card": options.card, "program": options.program}])
    return 0


def adapter(options) -> int:
    try:
        devices = json.loads(Path(options.devices).read_text())
    except (OSError, ValueError) as error:
        print(f"records.py: {options.devices}: {error}", file=sys.stderr)
        return 3
    order = {kind: place for place, kind in enumerate(TYPES)}
    devices.sort(key=lambda device: order.get(device["type"], len(TYPES)))
    if not devices:
        print("records.py: the program finds no adapter", file=sys.stderr)
        return 3
    chosen = devices[0]
    if options.want == "gpu" and chosen["type"] not in TYPES:
        print(f"records.py: the only adapters are no GPU: {', '.join(device['name'] for device in devices)}", file=sys.stderr)
        return 3
    if options.named.lower() not in chosen["name"].lower():
        print(f"records.py: '{chosen['name']}' is not the expected adapter, whose name has '{options.named}'", file=sys.stderr)
        return 3
    print(f"{chosen['name']}, {chosen['driver']}")
    return 0


def machine(options) -> int:
    plan = [line for line in Path(options.plan).read_text().splitlines() if line] if options.plan else []
    facts = dict(fact.split("=", 1) for fact in options.facts)
    append(options.results, [{"machine": facts, "card": options.card, "program": options.program, "plan": plan}])
    return 0


def done(options) -> int:
    state = {}
    for record in lines_of(options.results):
        if "part" in record and (record.get("card"), record.get("program")) == (options.card, options.program):
            state[record["part"]] = record["status"]
    print("".join(f"{name}\n" for name, status in state.items() if status == "done"), end="")
    return 0


def clocks(options) -> int:
    samples = []
    for line in Path(options.clocks).read_text(errors="replace").splitlines():
        when, *words = [word.strip() for word in line.split(",")]
        try:
            moment = datetime.datetime.strptime(when, "%Y/%m/%d %H:%M:%S.%f").timestamp()
            # A card that keeps one of them to itself says so in words.
            figures = [float(word) if word[:1].isdigit() else 0.0 for word in words]
        except ValueError:
            continue
        if len(figures) == 5 and figures[0]:
            samples.append([moment, *figures])
    records = read(options.results)
    known = {record["clocks_of"] for record in records if "clocks_of" in record}
    found = []
    for record in records:
        key = [record.get("part"), record.get("ended")]
        if not record.get("part") or not record.get("ended") or f"{key}" in known:
            continue
        # Loading and compiling leave the card idle: only samples with work count.
        during = [s for s in samples if record["ended"] - record["seconds"] - 1 <= s[0] <= record["ended"] + 1]
        busy = [s for s in during if s[5] >= 50] or during
        if busy:
            middle = [statistics.median(column) for column in zip(*busy)]
            found.append(
                {"clocks_of": f"{key}", "of_part": record["part"], "sm_mhz": middle[1], "sm_mhz_least": min(s[1] for s in busy),
                 "memory_mhz": middle[2], "celsius": max(s[3] for s in busy), "watt": middle[4], "samples": len(busy),
                 "card": record.get("card"), "program": record.get("program")}
            )  # fmt: skip
    append(options.results, found)
    return 0


def plan_states(records: list[dict]) -> list[tuple[str, str, str]]:
    """Status, name and detail of every part of the last plan, on the card of the last call, whatever program."""
    last = [record for record in records if "machine" in record]
    if not last:
        return []
    card = last[-1]["card"]
    states = {record["part"]: record for record in records if "part" in record and record.get("card") == card}
    unknown = {"status": "never tried", "detail": ""}
    names = last[-1].get("plan") or list(states)
    return [(states.get(name, unknown)["status"], name, states.get(name, unknown)["detail"]) for name in names]


def status(options) -> int:
    for row in plan_states(lines_of(options.results)):
        print("\t".join(row))
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Records of gpu.sh.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("adapter")
    verb.add_argument("devices")
    verb.add_argument("--want", choices=["gpu", "any"], default="gpu")
    verb.add_argument("--named", default="")
    for name in ["machine", "done", "part", "note"]:
        verb = verbs.add_parser(name)
        verb.add_argument("results")
        verb.add_argument("--card", required=True)
        verb.add_argument("--program", required=True)
        if name == "machine":
            verb.add_argument("--plan")
            verb.add_argument("--facts", nargs="*", default=[])
        if name in ("part", "note"):
            verb.add_argument("--name", required=True)
            verb.add_argument("--seconds", type=float, required=True)
        if name == "note":
            verb.add_argument("--status", required=True)
            verb.add_argument("--detail", default="")
        if name == "part":
            verb.add_argument("--kind", choices=list(ENDS), required=True)
            verb.add_argument("--code", type=int, required=True)
            verb.add_argument("--limit", type=float, required=True)
            for flag in ["--output", "--messages", "--folder", "--pair"]:
                verb.add_argument(flag)
            verb.add_argument("--optional", action="store_true")
    verb = verbs.add_parser("clocks")
    verb.add_argument("results")
    verb.add_argument("clocks")
    verbs.add_parser("status").add_argument("results")
    options = parser.parse_args()
    verbs_of = {"adapter": adapter, "machine": machine, "done": done, "part": part, "note": note, "clocks": clocks, "status": status}
    return verbs_of[options.verb](options)


if __name__ == "__main__":
    sys.exit(main())
