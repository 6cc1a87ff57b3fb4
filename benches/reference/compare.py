"""Runs viral-wgpu and PyTorch in turn on the same training steps and prints a table. `compare` starts this."""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path

from contestants import CONTESTANTS, RUNNER, Case, Contestant, Run
from machine import ROOT, facts

# The folder of `viral-wgpu init` that is trained on: one picture a sample, records in order.
CASE = "small"
# The first steps fill caches; the last one of viral-wgpu is recorded while no other is under way.
WARM_UP, TAIL = 2, 1
# Largest relative difference of a loss in step 0, before any update, and later: the bounds of tests/training/cases.rs.
FIRST_LOSS, LATER_LOSS = 1e-4, 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=14, help=f"of a run; {WARM_UP} at its front and {TAIL} at its end do not count")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each program, in turn")
    parser.add_argument("--only", help="leave out contestants whose names do not contain this")
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/viral-wgpu")
    parser.add_argument("--write", metavar="NAME", help="write benches/results/NAME.md and NAME.json")
    args = parser.parse_args()
    assert args.steps > WARM_UP + TAIL, "there must be steps that count"
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
    cold = case.viral(1, still)
    made = next(scratch.glob("run-*"))
    device = json.loads((made / "run.json").read_text())["device"]
    shutil.copytree(made / "adapter", case.adapter)
    without = shutil.copytree(made / "adapter", case.adapter_of(Contestant("", "", alignment=False)))
    (without / "alignment_projector.safetensors").unlink()
    warm = case.viral(1, still)

    runs: dict[str, list[Run]] = {contestant.name: [] for contestant in contestants}
    about = facts()
    for _ in range(args.rounds):
        for contestant in contestants:
            runs[contestant.name].append(case.run(contestant, args.steps))
    return {
        "case": CASE,
        **about,
        "device": device,
        "steps": args.steps,
        "rounds": args.rounds,
        "start": {"cold_seconds": cold.first_step, "warm_seconds": warm.first_step},
        "contestants": [summary(contestant, runs[contestant.name]) for contestant in contestants],
        "losses": differences(contestants, runs),
    }


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


def summary(contestant: Contestant, runs: list[Run]) -> dict:
    seconds = [step["seconds"] for run in runs for step in counted(run)]
    tokens = [step["tokens"] for run in runs for step in counted(run)]
    return {
        "name": contestant.name,
        "program": contestant.program,
        "alignment": contestant.alignment,
        "step_seconds": statistics.median(seconds),
        "step_seconds_of_rounds": [statistics.median(step["seconds"] for step in counted(run)) for run in runs],
        "tokens_per_step": statistics.mean(tokens),
        "tokens_per_second": statistics.median(tokens) / statistics.median(seconds),
        "first_step_seconds": statistics.median(run.first_step for run in runs),
        "peak_bytes": max(run.peak_bytes for run in runs),
    }


def counted(run: Run) -> list[dict]:
    return run.steps[WARM_UP : len(run.steps) - TAIL]


def differences(contestants: list[Contestant], runs: dict[str, list[Run]]) -> dict:
    """Largest relative difference of a loss from PyTorch's, with alignment and without."""
    worst = {"first": 0.0, "later": 0.0}
    for alignment in (True, False):
        # Other samples, other losses.
        group = [c for c in contestants if c.alignment == alignment and c.samples is None]
        reference = next((runs[c.name][0] for c in group if c.program == "pytorch"), None)
        if reference is None:
            continue
        for run in (run for contestant in group for run in runs[contestant.name]):
            for ours, theirs in zip(run.steps, reference.steps, strict=True):
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
        "| | median step | of rounds | tokens/s | step ÷ PyTorch's | peak memory | ÷ PyTorch's | start to end of step 0 |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in result["contestants"]:
        same = (c for c in result["contestants"] if c["program"] == "pytorch" and c["alignment"] == row["alignment"])
        base = next(same, None)
        ratio = lambda key: f"{row[key] / base[key]:.2f}" if base else ""
        rounds = " ".join(f"{seconds:.2f}" for seconds in row["step_seconds_of_rounds"])
        lines.append(
            f"| {row['name']} | {row['step_seconds']:.3f} s | {rounds} | {row['tokens_per_second']:.0f} | {ratio('step_seconds')} "
            f"| {row['peak_bytes'] / 1e9:.2f} GB | {ratio('peak_bytes')} | {row['first_step_seconds']:.1f} s |"
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


if __name__ == "__main__":
    main()
