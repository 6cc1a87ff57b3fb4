"""Measures in PyTorch what `viral-wgpu bench kernels` measured, and prints both. `kernels` starts this."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from machine import ROOT, facts

RUNNER = ROOT / "scripts/software-vulkan"
# Runs of a case, of which the median counts, after one that does not.
FEWEST, MOST, SECONDS = 5, 50, 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, epilog="Other arguments go to `viral-wgpu bench kernels`.")
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/viral-wgpu")
    parser.add_argument("--write", metavar="NAME", help="write benches/results/NAME.md and NAME.json")
    args, rest = parser.parse_known_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    result = facts()
    measured = subprocess.run([RUNNER, args.binary, "--quiet", "bench", "kernels", "--json", *rest], stdout=subprocess.PIPE)
    if measured.returncode != 0:
        sys.exit(measured.returncode)
    result |= json.loads(measured.stdout)
    result["arguments"] = rest
    for row in result["rows"]:
        seconds = measure(row)
        if seconds is not None:
            row["pytorch_seconds"] = seconds
            row["pytorch_gflops"] = row["gflops"] * row["seconds"] / seconds
    text = table(result)
    print(text)
    if args.write:
        folder = ROOT / "benches/results"
        (folder / f"{args.write}.json").write_text(json.dumps(result, indent=2) + "\n")
        (folder / f"{args.write}.md").write_text(text + "\n")


def measure(row: dict) -> float | None:
    """Median seconds of a case in PyTorch; none for kinds that are not compared."""
    make = {"product": product, "attention": attention}.get(row["kind"])
    if make is None:
        return None
    run = make(row)
    times, end = [], 0.0
    while len(times) <= FEWEST or (end < SECONDS and len(times) <= MOST):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
        end += times[-1]
    return statistics.median(times[1:])


def product(row: dict) -> Callable[[], object]:
    m, n, k, form = row["m"], row["n"], row["k"], row["form"]
    a = torch.rand(k, m).T if form[0] == "t" else torch.rand(m, k)
    b = torch.rand(n, k).T if form[1] == "t" else torch.rand(k, n)
    out = torch.empty(m, n)
    return lambda: torch.mm(a, b, out=out)


def attention(row: dict) -> Callable[[], object]:
    shape = lambda heads: (row["batch"], heads, row["tokens"], row["width"])
    backward = row["backward"]
    q = torch.rand(shape(row["heads"]), requires_grad=backward)
    k, v = (torch.rand(shape(row["kv_heads"]), requires_grad=backward) for _ in range(2))
    grouped = row["heads"] != row["kv_heads"]
    forward = lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
    weights = torch.rand(shape(row["heads"]))
    # As ours: the forward pass is part of what the gradients need.
    return (lambda: torch.autograd.grad((forward() * weights).sum(), (q, k, v))) if backward else forward


def table(result: dict) -> str:
    device = result["device"]
    lines = [
        "# Kernels in viral-wgpu and in PyTorch",
        "",
        f"* {result['date']}, commit {result['commit']}, `benches/reference/kernels {' '.join(result['arguments'])}`",
        f"* viral-wgpu on {device['adapter']}, {device['backend']}, {device['driver']}; PyTorch {torch.__version__} on {result['processor']}",
        f"* measured peak of the device: {result['peak_gflops']:.1f} GFLOP/s, {result['peak_gbytes']:.1f} GB/s; a share above 100 % "
        "means that operands stayed in caches",
        f"* load average before: {result['load_before']:.2f}",
        "",
        "| model | kernel | shape | ms | GFLOP/s | GB/s | of peak | PyTorch ms | PyTorch GFLOP/s | time ÷ PyTorch's |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in result["rows"]:
        line = f"| {row['model']} | {row['name']} | {row['shape']} | {row['seconds'] * 1e3:.3f} | {row['gflops']:.1f} "
        line += f"| {row['gbytes']:.1f} | {row['share']:.0%} |"
        if "pytorch_seconds" in row:
            seconds = row["pytorch_seconds"]
            line += f" {seconds * 1e3:.3f} | {row['pytorch_gflops']:.1f} | {row['seconds'] / seconds:.2f} |"
        else:
            line += " | | |"
        lines.append(line)
    lines += [f"\nSkipped: {skipped['case']} ({skipped['because']})" for skipped in result["skipped"]]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
