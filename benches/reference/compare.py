"""Runs viral-wgpu and PyTorch in turn on the same training steps and prints a table. `compare` starts this."""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path

from contestants import CONTESTANTS, RUNNER, Case, Contestant, Process
from machine import ROOT, facts

# The folder of `viral-wgpu init` that is trained on: one picture a sample, records in order.
CASE = "small"
# The first steps fill caches; the last one of viral-wgpu is recorded while no other is under way. A turn cuts through its first step.
WARM_UP, TAIL, CUT = 2, 1, 1
# Starts with filled caches.
STARTS = 3
# Largest relative difference of a loss in step 0, before any update, and later: the bounds of tests/training/cases.rs.
FIRST_LOSS, LATER_LOSS = 1e-4, 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=4, help="of a turn; the first of them does not count")
    parser.add_argument("--rounds", type=int, default=8, help="turns that every program gets")
    parser.add_argument("--only", help="leave out contestants whose names do not contain this")
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/viral-wgpu")
    parser.add_argument("--write", metavar="NAME", help="write benches/results/NAME.md and NAME.json")
    args = parser.parse_args()
    assert args.steps > CUT, "there must be steps that count"
    contestants = [contestant for contestant in CONTESTANTS if (args.only or "") in contestant.name]
    with tempfile.TemporaryDirectory() as scratch:
        result = compare(args, contestants, Path(scratch))
    text = table(result)
    print(text)
    if args.write:
        folder = ROOT / "benches/results"
        (folder / f"{args.write}.json").write_text(json.dumps(result, indent=2) + "\n")
        (folder / f"{args.write}.md").write_text(text + "\n")


def compare(args: argparse.Namespace, contestants: list[Contestant], scratch: Path) -> dict:
    folder = scratch / CASE
    subprocess.run([RUNNER, args.binary, "--quiet", "init", folder, "--preset", CASE], check=True, stdout=subprocess.DEVNULL)
    case = Case(folder / "config.toml", scratch / "adapter", args.binary.resolve(), scratch, with_empty_caches(scratch))

    # Everybody starts from what a step with learning rate 0 leaves. It runs with empty caches, and again with filled ones.
    still = ["train.lr=0", "train.projector_lr=0"]
    cold = first_step(case, still)
    made = next(scratch.glob("run-*"))
    device = json.loads((made / "run.json").read_text())["device"]
    shutil.copytree(made / "adapter", case.adapter)
    without = shutil.copytree(made / "adapter", case.adapter_of(Contestant("", "", alignment=False)))
    (without / "alignment_projector.safetensors").unlink()
    warm = statistics.median(first_step(case, still) for _ in range(STARTS))

    about = facts()
    processes = take_turns(case, contestants, args.steps, args.rounds)
    steps = {name: process.steps() for name, process in processes.items()}
    turns = {name: counted(own, args.steps, args.rounds) for name, own in steps.items()}
    return {
        "case": CASE,
        **about,
        "device": device,
        "steps": args.steps,
        "rounds": args.rounds,
        "start": {"cold_seconds": cold, "warm_seconds": warm},
        "contestants": [summary(c, processes[c.name], turns[c.name]) for c in contestants],
        "losses": differences(contestants, steps),
    }


def first_step(case: Case, settings: list[str]) -> float:
    """Seconds from the start of viral-wgpu to the end of its only step."""
    process = case.start_viral(1, settings)
    process.finish()
    return process.first_step


def take_turns(case: Case, contestants: list[Contestant], steps: int, rounds: int) -> dict[str, Process]:
    """Every program begins and is paused; then they go on in turn, some steps at a time, so that all of them have the machine's good
    minutes and its bad ones."""
    total = WARM_UP + rounds * steps + TAIL
    processes: dict[str, Process] = {}
    try:
        for contestant in contestants:
            processes[contestant.name] = case.start(contestant, total)
            processes[contestant.name].run_to(WARM_UP)
        for turn in range(1, rounds + 1):
            for process in processes.values():
                process.run_to(WARM_UP + turn * steps)
        for process in processes.values():
            process.finish()
    finally:
        for process in processes.values():
            process.kill()
    return processes


def with_empty_caches(scratch: Path) -> dict[str, str]:
    """The environment of a process that finds the unpacked driver, but nothing compiled."""
    environment = dict(os.environ)
    home = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "viral-wgpu"
    known = Path(environment.get("VIRAL_CACHE_DIR", home))
    cache = scratch / "cache"
    cache.mkdir()
    for driver in known.glob("software-vulkan-*"):
        (cache / driver.name).symlink_to(driver)
    environment |= {"VIRAL_CACHE_DIR": str(cache), "MESA_SHADER_CACHE_DIR": str(cache / "shaders")}
    return environment


def summary(contestant: Contestant, process: Process, turns: list[list[dict]]) -> dict:
    steps = [step for turn in turns for step in turn]
    seconds = statistics.median(step["seconds"] for step in steps)
    return {
        "name": contestant.name,
        "program": contestant.program,
        "alignment": contestant.alignment,
        "step_seconds": seconds,
        "step_seconds_of_rounds": [statistics.median(step["seconds"] for step in turn) for turn in turns],
        "tokens_per_step": statistics.mean(step["tokens"] for step in steps),
        "tokens_per_second": statistics.median(step["tokens"] for step in steps) / seconds,
        "first_step_seconds": process.first_step,
        "peak_bytes": process.peak_bytes,
    }


def counted(steps: list[dict], of_turn: int, rounds: int) -> list[list[dict]]:
    """The steps of each turn that count."""
    firsts = (WARM_UP + turn * of_turn for turn in range(rounds))
    return [steps[first + CUT : first + of_turn] for first in firsts]


def differences(contestants: list[Contestant], steps: dict[str, list[dict]]) -> dict:
    """Largest relative difference of a loss from PyTorch's, with alignment and without."""
    worst = {"first": 0.0, "later": 0.0}
    for alignment in (True, False):
        # Other samples, other losses.
        group = [c for c in contestants if c.alignment == alignment and c.samples is None]
        reference = next((steps[c.name] for c in group if c.program == "pytorch"), None)
        if reference is None:
            continue
        for contestant in group:
            for ours, theirs in zip(steps[contestant.name], reference, strict=True):
                difference = abs(ours["loss"] - theirs["loss"]) / abs(theirs["loss"])
                key = "first" if ours["step"] == 0 else "later"
                worst[key] = max(worst[key], difference)
    return worst | {"agree": worst["first"] <= FIRST_LOSS and worst["later"] <= LATER_LOSS}


def table(result: dict) -> str:
    device, losses = result["device"], result["losses"]
    lines = [
        f"# {result['case']}: a training step in viral-wgpu and in PyTorch",
        "",
        f"* {result['date']}, commit {result['commit']}, `benches/reference/compare "
        f"--steps {result['steps']} --rounds {result['rounds']}`",
        f"* viral-wgpu on {device['adapter']}, {device['backend']}, {device['driver']}; PyTorch on {result['processor']}",
        f"* load average before the first round: {result['load_before']:.2f}",
        "",
        "| | median step | of each round | tokens/s | step ÷ PyTorch's | peak memory | ÷ PyTorch's | start to end of step 0 |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in result["contestants"]:
        same = (c for c in result["contestants"] if c["program"] == "pytorch" and c["alignment"] == row["alignment"])
        base = next(same, None)
        rounds = " ".join(f"{seconds:.2f}" for seconds in row["step_seconds_of_rounds"])
        lines.append(
            f"| {row['name']} | {row['step_seconds']:.3f} s | {rounds} | {row['tokens_per_second']:.0f} | {time_ratio(row, base)} "
            f"| {row['peak_bytes'] / 1e9:.2f} GB | {memory_ratio(row, base)} | {row['first_step_seconds']:.1f} s |"
        )
    start = result["start"]
    lines += [
        "",
        f"viral-wgpu, start of the process to the end of step 0: {start['cold_seconds']:.1f} s with empty caches, "
        f"{start['warm_seconds']:.1f} s with filled ones.",
        "",
        f"Losses {'agree' if losses['agree'] else 'DIFFER'}: relative difference {losses['first']:.1e} in step 0, at most "
        f"{losses['later']:.1e} later (bounds {FIRST_LOSS:.0e} and {LATER_LOSS:.0e}).",
    ]
    return "\n".join(lines)


def time_ratio(row: dict, base: dict | None) -> str:
    """The median of what the rounds say: within one both programs met the same machine."""
    if base is None:
        return ""
    rounds = zip(row["step_seconds_of_rounds"], base["step_seconds_of_rounds"], strict=True)
    return f"{statistics.median(ours / theirs for ours, theirs in rounds):.2f}"


def memory_ratio(row: dict, base: dict | None) -> str:
    return "" if base is None else f"{row['peak_bytes'] / base['peak_bytes']:.2f}"


if __name__ == "__main__":
    main()
