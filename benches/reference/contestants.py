"""The programs that are compared, one entry each, and how one run of each is started, paused and measured."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
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
    samples: int | None = None  # the first samples only, whose pictures' features later steps remember; else none are remembered


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
class Case:
    """A folder of `viral-wgpu init`, and the adapter from which everybody starts."""

    config: Path
    adapter: Path
    binary: Path
    scratch: Path
    environment: dict[str, str]

    def start(self, contestant: Contestant, steps: int) -> "Process":
        if contestant.program == "pytorch":
            command = [sys.executable, HERE / "train_step.py", self.config, "--adapter", self.adapter_of(contestant)]
            command += ["--steps", str(steps), *([] if contestant.alignment else ["--no-alignment"])]
            lines = self.scratch / f"pytorch-{time.monotonic_ns()}.jsonl"
            return Process([*command, *contestant.options], dict(os.environ), lines, output=lines)
        settings = [f"model.adapter={self.adapter_of(contestant)}", *self.without(contestant), *self.pictures(contestant)]
        return self.start_viral(steps, settings, contestant.options)

    def start_viral(self, steps: int, settings: list[str], options: tuple[str, ...] = ()) -> "Process":
        out = self.scratch / f"run-{time.monotonic_ns()}"
        command = [RUNNER, self.binary, "--quiet", "train", self.config, "--out", out]
        for setting in [f"train.steps={steps}", *settings]:
            command += ["--set", setting]
        return Process([*command, *options], self.environment, out / "metrics.jsonl", output=Path(os.devnull))

    def adapter_of(self, contestant: Contestant) -> Path:
        return self.adapter if contestant.alignment else self.adapter.with_name("adapter-without-alignment")

    def pictures(self, contestant: Contestant) -> list[str]:
        if contestant.samples is None:
            return ["train.feature_cache=0"]
        records = json.loads((self.config.parent / "train.json").read_text())
        few = self.scratch / f"first-{contestant.samples}.json"
        few.write_text(json.dumps(records[: contestant.samples]))
        return [f"data.train={few}"]

    @staticmethod
    def without(contestant: Contestant) -> list[str]:
        return [] if contestant.alignment else ["vra.enabled=false"]


class Process:
    """A program that writes a line a step to a file. It runs, and takes time from others, only while one of its methods does."""

    def __init__(self, command: list, environment: dict[str, str], lines: Path, output: Path):
        self.command, self.lines = [str(part) for part in command], lines
        self.peak_bytes = 0  # largest resident memory, known in the end
        start = time.perf_counter()
        with output.open("w") as stdout:
            self.process = subprocess.Popen(self.command, env=environment, stdout=stdout)
        self._wait_for(1)
        self.first_step = time.perf_counter() - start  # seconds from the start of the process to the end of step 0
        self._signal(signal.SIGSTOP)

    def run_to(self, count: int) -> None:
        """Goes on until `count` steps have ended, counted from the first one."""
        self._signal(signal.SIGCONT)
        self._wait_for(count)
        self._signal(signal.SIGSTOP)

    def finish(self) -> None:
        self._signal(signal.SIGCONT)
        self._wait_for(None)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def steps(self) -> list[dict]:
        """What each step yielded, as in metrics.jsonl."""
        text = self.lines.read_text() if self.lines.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def _wait_for(self, count: int | None) -> None:
        """Until `count` steps or the process have ended; it must not end without them. Takes next to no time from the program."""
        while count is None or not self.lines.exists() or self.lines.read_bytes().count(b"\n") < count:
            ended, status, usage = os.wait4(self.process.pid, os.WNOHANG)
            if ended:
                self.process.returncode = os.waitstatus_to_exitcode(status)
                self.peak_bytes = usage.ru_maxrss * 1024  # Linux counts in KiB
                if self.process.returncode != 0 or count is not None:
                    raise SystemExit(f"{' '.join(self.command)}\nended after {len(self.steps())} steps with code {self.process.returncode}")
                return
            time.sleep(0.005)

    def _signal(self, number: signal.Signals) -> None:
        if self.process.returncode is None:
            self.process.send_signal(number)
