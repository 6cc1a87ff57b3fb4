"""The programs that are compared, one entry each, and how one run of each is measured."""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from machine import ROOT

HERE = Path(__file__).resolve().parent
RUNNER = ROOT / "scripts/software-vulkan"


@dataclass(frozen=True)
class Contestant:
    name: str
    program: str  # "viral-wgpu" or "pytorch"
    alignment: bool = True
    options: tuple[str, ...] = ()  # further arguments
    samples: int | None = None  # the first samples only, so that later steps remember their pictures' features


# Each is compared with the first PyTorch of the same alignment.
CONTESTANTS = [
    Contestant("viral-wgpu", "viral-wgpu"),
    Contestant("viral-wgpu, features remembered", "viral-wgpu", samples=8),
    Contestant("PyTorch", "pytorch"),
    Contestant("PyTorch, logits of targets only", "pytorch", options=("--supervised-rows-only",)),
    Contestant("viral-wgpu, no alignment", "viral-wgpu", alignment=False),
    Contestant("PyTorch, no alignment", "pytorch", alignment=False),
]


@dataclass
class Run:
    """What one process did."""

    steps: list[dict] = field(default_factory=list)  # as in metrics.jsonl
    first_step: float = 0.0  # seconds from the start of the process to the end of step 0
    seconds: float = 0.0  # to the end of the process
    peak_bytes: int = 0  # largest resident memory


@dataclass
class Case:
    """A folder of `viral-wgpu init`, and the adapter from which everybody starts."""

    config: Path
    adapter: Path
    binary: Path
    scratch: Path
    environment: dict[str, str]

    def run(self, contestant: Contestant, steps: int) -> Run:
        if contestant.program == "pytorch":
            command = [sys.executable, HERE / "train_step.py", self.config, "--adapter", self.adapter_of(contestant)]
            command += ["--steps", str(steps), *([] if contestant.alignment else ["--no-alignment"])]
            return measure([*command, *contestant.options], dict(os.environ), None)
        settings = [f"model.adapter={self.adapter_of(contestant)}", *self.without(contestant), *self.first_samples(contestant)]
        return self.viral(steps, settings, contestant.options)

    def viral(self, steps: int, settings: list[str], options: tuple[str, ...] = ()) -> Run:
        out = self.scratch / f"run-{time.monotonic_ns()}"
        command = [RUNNER, self.binary, "--quiet", "train", self.config, "--out", out]
        for setting in [f"train.steps={steps}", *settings]:
            command += ["--set", setting]
        run = measure([*command, *options], self.environment, out / "metrics.jsonl")
        run.steps = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        return run

    def adapter_of(self, contestant: Contestant) -> Path:
        return self.adapter if contestant.alignment else self.adapter.with_name("adapter-without-alignment")

    def first_samples(self, contestant: Contestant) -> list[str]:
        if contestant.samples is None:
            return []
        records = json.loads((self.config.parent / "train.json").read_text())
        few = self.scratch / f"first-{contestant.samples}.json"
        few.write_text(json.dumps(records[: contestant.samples]))
        return [f"data.train={few}"]

    @staticmethod
    def without(contestant: Contestant) -> list[str]:
        return [] if contestant.alignment else ["vra.enabled=false"]


def measure(command: list, environment: dict[str, str], metrics: Path | None) -> Run:
    """Runs a process to its end. Step 0 ends with the first line of standard output, or of `metrics` where that is given."""
    run, start = Run(), time.perf_counter()
    process = subprocess.Popen([str(part) for part in command], env=environment, stdout=subprocess.PIPE, text=True)
    ended = threading.Event()

    def watch(path: Path) -> None:
        while not ended.wait(0.01) and not run.first_step:
            if path.exists() and path.stat().st_size > 0:
                run.first_step = time.perf_counter() - start

    watcher = metrics and threading.Thread(target=watch, args=(metrics,))
    if watcher:
        watcher.start()
    for line in process.stdout:
        if not metrics:
            run.first_step = run.first_step or time.perf_counter() - start
            run.steps.append(json.loads(line))
    _, status, usage = os.wait4(process.pid, 0)
    run.seconds = time.perf_counter() - start
    ended.set()
    if watcher:
        watcher.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}\nended with code {process.returncode}")
    run.peak_bytes = usage.ru_maxrss * 1024  # Linux counts in KiB
    return run
