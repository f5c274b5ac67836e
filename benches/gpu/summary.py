"""The report of gpu.sh as Markdown, from the records of results.jsonl. `../report.py gpu` prints it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from records import plan_states  # noqa: E402
from report import OURS, case_of, compare_table, markdown, number, order  # noqa: E402

FINISHED = ("done", "not there")


def clean(text: object) -> str:
    return str(text).replace("|", "/").replace("\n", " ")


def of_this_card(records: list[dict]) -> list[dict]:
    """What was measured on the card and driver of the last call."""
    machines = [record for record in records if "machine" in record]
    return [r for r in records if r.get("card", machines[-1]["card"]) == machines[-1]["card"]] if machines else records


def unmeasured(records: list[dict]) -> str:
    states = plan_states(records)
    if not states:
        return "Unmeasured: everything."
    rows = [(status, name, detail) for status, name, detail in states if status != "done"]
    if not rows:
        return "Every part of the kit was measured."
    return "Unmeasured:\n\n" + "\n".join(f"- {clean(name)}: {status}" + (f" ({clean(detail)})" if detail else "") for status, name, detail in rows)


def parts_table(records: list[dict]) -> str:
    latest = {r["part"]: r for r in records if "part" in r}
    clocks = {r["of_part"]: r for r in records if "of_part" in r}
    rows = []
    for name, record in latest.items():
        clock = clocks.get(name)
        mhz = f"{clock['sm_mhz']:.0f} ({clock['sm_mhz_least']:.0f})" if clock else ""
        rows.append([clean(name), record["status"], number(record["seconds"]), mhz, clean(record["detail"])])
    return markdown(["part", "status", "seconds", "SM MHz, median (least)", "detail"], rows)


def roofline(runs: list[dict]) -> str:
    peaks = [r["roofline"] for r in runs if r.get("roofline")]
    if not peaks:
        return ""
    peak = {key: value for each in peaks for key, value in each.items()}
    text = f"Roofline of WGSL kernels on this adapter: {number(peak['gflops'])} GFLOP/s, {number(peak['gb_per_s'])} GB/s"
    if peak.get("matrix_gflops"):
        text += f", {number(peak['matrix_gflops'])} GFLOP/s on matrix units"
    rows, cases = [], {}
    for run in sorted((r for r in runs if r["peer"] == OURS and r.get("gflops") and r.get("pair") not in ("rules", "unguarded")), key=order):
        cases.setdefault((case_of(run), run["precision"]), []).append(run)
    for group in cases.values():
        run = sorted(group, key=lambda r: r["gflops"])[len(group) // 2]
        units = run.get("matrix_units") and peak.get("matrix_gflops")
        share = 100 * run["gflops"] / (peak["matrix_gflops"] if units else peak["gflops"])
        of = "matrix units" if units else "f32"
        name = f"{run['model']} {run['mode']}, batch {run['batch_size']}, {run['precision']}"
        rows.append([name, number(run["gflops"]), f"{share:.0f} % of {of}"])
    return f"{text}.\n\n" + markdown(["case", "GFLOP/s", "of the roofline"], rows)


def layer_tables(runs: list[dict]) -> str:
    """Kernels of each layer, for the runs that measured the roofline as well."""
    texts = []
    for run in (r for r in runs if r.get("roofline") and r.get("layers")):
        units = {True: "on matrix units", False: "no matrix units"}.get(run.get("matrix_units"), "matrix units not told")
        compiled = f", compiled in {run['compile_s']:.1f} s" if run.get("compile_s") is not None else ""
        fallback = f", fell back: {clean(run['fallback'])}" if run.get("fallback") else ""
        head = f"Layers of {run['model']} {run['mode']}, batch {run['batch_size']}, {run['precision']}: {units}{compiled}{fallback}."
        rows = [[f"{x['name']} {x['pass']}", number(x["ms"]), number(x["gflops"]), clean(x.get("kernel", ""))] for x in run["layers"]]
        texts.append(f"{head}\n\n" + markdown(["layer", "ms", "GFLOP/s", "kernel"], rows))
    return "\n\n".join(texts)


def facts(runs: list[dict]) -> str:
    """Matrix units, time of compiling and fallbacks of each of our runs, where the program tells them."""
    rows = []
    last = {(case_of(r), r["precision"]): r for r in runs if r["peer"] == OURS and ("compile_s" in r or r.get("fallback"))}
    for run in sorted(last.values(), key=order):
        units = {True: "yes", False: "no"}.get(run.get("matrix_units"), "not told")
        seconds = number(run.get("compile_s"))
        name = f"{run['model']} {run['mode']}, batch {run['batch_size']}, {run['precision']}"
        rows.append([name, units, seconds, number(run.get("first_step_s")), clean(run.get("fallback", ""))])
    if not rows:
        return ""
    return markdown(["case", "matrix units", "compile s", "first step s", "fell back"], rows)


def kernels(records: list[dict]) -> str:
    """The best design of each problem, with its registers, and what is not right."""
    found = {r["kernel"]: r for r in records if r.get("of") == "kernels"}
    registers = {}
    # A kernel of several entry points is as large as the largest of them.
    for record in (r for r in records if r.get("of") == "registers"):
        known = registers.get(record["kernel"])
        if not known or (record.get("registers") or 0) >= (known.get("registers") or 0):
            registers[record["kernel"]] = record
    if not found and not registers:
        return ""
    problems = {}
    for kernel in found.values():
        # A kernel's name begins with layer and pass, which a problem does not tell.
        name, colon, _ = kernel["kernel"].partition(": ")
        problem = str(kernel.get("problem"))
        problems.setdefault(f"{name} ({problem})" if colon else problem, []).append(kernel)
    rows = []
    for problem, tried in problems.items():
        right = sorted((k for k in tried if k["verdict"] == "right" and k.get("ms")), key=lambda k: k["ms"])
        for place, kernel in enumerate(right[:3]):
            told = registers.get(kernel["kernel"], {})
            rows.append(
                [clean(problem) if place == 0 else "", clean(kernel.get("design", kernel["kernel"])), number(kernel["ms"]), number(kernel.get("gflops")),
                 str(told.get("registers", "")), str(told.get("spilled_bytes", "")), f"{len(right)} of {len(tried)}" if place == 0 else ""]
            )  # fmt: skip
        if not right:
            rows.append([clean(problem), "none is right", "", "", "", "", f"0 of {len(tried)}"])
    texts = []
    if rows:
        texts.append("The three fastest designs of each problem:")
        texts.append(markdown(["problem", "design", "ms", "GFLOP/s", "registers", "spilled bytes", "right"], rows))
    for verdict in ["wrong", "lost", "does not compile", "does not fit", "too slow", "not for this adapter"]:
        names = [k for k in found.values() if k["verdict"] == verdict]
        if names:
            why = f": {clean(names[0]['why'])}" if names[0].get("why") else ""
            shown = ", ".join(k["kernel"] for k in names[:8]) + (", ..." if len(names) > 8 else "")
            texts.append(f"{len(names)} kernels: {verdict}{why} ({shown}).")
    told = [r for r in registers.values() if r.get("registers") is not None]
    if told:
        counts = sorted(r["registers"] for r in told)
        spills = [r for r in told if r.get("spilled_bytes")]
        texts.append(
            f"Registers of {len(told)} kernels: {counts[0]} to {counts[-1]}, median {counts[len(counts) // 2]}; "
            f"{len(spills)} spill" + (": " + ", ".join(f"{r['kernel']} ({r['spilled_bytes']} bytes)" for r in spills[:8]) if spills else "") + "."
        )
    return "\n\n".join(texts)


def training(records: list[dict]) -> str:
    epochs = {(r["epoch_of"], r["epoch"]): r for r in records if "epoch_of" in r}
    if not epochs:
        return ""
    keys = ["train_loss", "train_acc", "test_loss", "test_acc", "seconds"]
    rows = [[f"{recipe}, epoch {epoch}"] + [number_of(r.get(key)) for key in keys] for (recipe, epoch), r in sorted(epochs.items())]
    return markdown(["training run", *keys], rows)


def number_of(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def gpu_report(records: list[dict]) -> str:
    machines = [r for r in records if "machine" in r]
    cards = {r["card"] for r in machines} - {machines[-1]["card"]} if machines else set()
    records = of_this_card(records)
    sections = []
    if machines:
        sections.append("\n".join(f"- {key}: {clean(value)}" for key, value in machines[-1]["machine"].items()))
        if cards:
            sections.append(f"Left out, for it was measured on another card or driver: {'; '.join(sorted(cards))}.")
    sections += [unmeasured(records), parts_table(records)]
    # A part that was tried again counts once, with its last figures.
    measured = {}
    for record in records:
        if "images_per_s" in record and "peer" in record:
            measured[(record["peer"], record["precision"], case_of(record), record.get("pair"))] = record
    runs = list(measured.values())
    cases = {key[:3] for key in measured}
    skipped = [r for r in records if "skipped" in r and (r["peer"], r["precision"], case_of(r)) not in cases]
    # Those that measured something else beside it took fewer steps.
    sections.append(compare_table([r for r in runs if r.get("pair") not in ("rules", "unguarded", "roofline", "profile")] + skipped))
    for pair, what in [("rules", "By rules, without what tuning found"), ("unguarded", "Without robust buffer access")]:
        of_pair = [r for r in runs if r.get("pair") == pair]
        if of_pair:
            sections.append(f"{what}:\n\n" + compare_table(of_pair))
    sections += [roofline(runs), facts(runs), layer_tables(runs), kernels(records), training(records)]
    return "\n\n".join(section.strip() for section in sections if section.strip()) + "\n"
