"""Trains models that the program has never seen, in PyTorch and in viral-wgpu, and compares them.

Each case draws its own widths, heads, vocabulary, image size, adapter rank, layers, teacher, file layout, pictures and conversations.
Prints a line a case, exits 1 if any of them fails. Every second case starts from an adapter directory; the others start fresh, from
the initial state that a one-step run with learning rate 0 leaves behind.
"""

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
import traceback
from dataclasses import asdict
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file

from outside_cases import write_case
from peft_load import left_over
from trainer import Step, Trainer, read_config

# Absolute for losses, relative for norms and rates, relative L2 for tensors.
LOSS, NORM, RATE, TENSOR = 1e-3, 1e-3, 1e-6, 1e-3


class Mismatch(Exception):
    """The program did not do what was asked, or gave something else."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=Path, help="viral-wgpu")
    parser.add_argument("--cases", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0, help="of the first case; the others follow")
    parser.add_argument("--dir", type=Path, help="write the cases here and keep them")
    parser.epilog = "What follows -- is handed to `viral-wgpu train`."
    given = sys.argv[1:]
    split = given.index("--") if "--" in given else len(given)
    args, options = parser.parse_args(given[:split]), given[split + 1 :]
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    failed = 0
    print(f"{'case':12} {'loss':>8} {'norm':>8} {'tensor':>8}  result")
    with tempfile.TemporaryDirectory() as temporary:
        for seed in range(args.seed, args.seed + args.cases):
            folder = (args.dir or Path(temporary)) / f"outside-{seed}"
            shutil.rmtree(folder, ignore_errors=True)
            worst = {"loss": math.nan, "norm": math.nan, "tensor": math.nan}
            try:
                result = "ok: " + check(folder, seed, args.binary.resolve(), options, worst)
            except Mismatch as error:
                result, failed = f"FAILED: {error}", failed + 1
            except Exception:
                traceback.print_exc()
                result, failed = "FAILED: the check itself broke", failed + 1
            print(f"{folder.name:12} {worst['loss']:8.1e} {worst['norm']:8.1e} {worst['tensor']:8.1e}  {result}", flush=True)
    sys.exit(1 if failed else 0)


def check(folder: Path, seed: int, binary: Path, options: list[str], worst: dict[str, float]) -> str:
    """One case, in words; `worst` takes the largest differences seen."""
    words = write_case(folder, seed)
    config = read_config(folder / "config.toml")
    start = None
    if config["model"]["adapter"] is None:
        still = [f"--set=train.{key}=0.0" for key in ("lr", "projector_lr", "weight_decay")]
        run(binary, folder, "init", [*options, "--set=train.steps=1", *still])
        start = folder / "init" / "adapter"
        check_fresh(start)
    run(binary, folder, "run", options)
    metrics = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]

    trainer = Trainer(config, start)
    if len(metrics) != trainer.steps:
        raise Mismatch(f"{len(metrics)} lines in metrics.jsonl for {trainer.steps} steps")
    for (step, _), theirs in zip(trainer.run(), metrics):
        compare_step(step, theirs, worst)
    ours = {name: parameter.detach() for name, parameter in trainer.network.trainable().items()}
    compare_tensors(ours, load_run(folder / "run" / "adapter"), worst)
    missing, unexpected = left_over(folder / "run" / "adapter", Path(config["model"]["path"]))
    if missing or unexpected:
        raise Mismatch(f"PEFT finds {len(missing)} keys missing and {len(unexpected)} unexpected, first {(missing + unexpected)[0]}")
    return words


def run(binary: Path, folder: Path, out: str, options: list[str]) -> None:
    command = [binary, "train", folder / "config.toml", "--out", folder / out, *options]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        (folder / f"{out}.log").write_text(done.stdout + done.stderr)
        last = (done.stderr.strip().splitlines() or ["no message"])[-3:]
        raise Mismatch(f"exit code {done.returncode}: {' | '.join(last)}")


def check_fresh(adapter: Path) -> None:
    """A new adapter changes nothing: B is zero, A is not, and P's weights are small with zero biases."""
    for name, tensor in load_run(adapter).items():
        if "lora_B" in name or (name.startswith("alignment") and name.endswith("bias")):
            good = bool((tensor == 0).all())
        elif "lora_A" in name:
            bound = tensor.shape[1] ** -0.5
            good = bool(tensor.abs().max() <= bound) and (tensor.numel() < 64 or bool(tensor.abs().max() > 0.8 * bound))
        elif name.startswith("alignment"):
            # N(0, 0.02); the bounds are five standard errors wide for the number of elements.
            good = abs(tensor.std().item() / 0.02 - 1) < 5 / (2 * tensor.numel()) ** 0.5
        else:
            continue
        if not good:
            raise Mismatch(f"{name} is not initialised as specified")


def load_run(adapter: Path) -> dict[str, torch.Tensor]:
    tensors = {}
    for name in ("adapter_model", "mm_projector", "alignment_projector"):
        file = adapter / f"{name}.safetensors"
        if file.exists():
            tensors |= load_file(file)
    return tensors


def compare_step(ours: Step, theirs: dict, worst: dict[str, float]) -> None:
    checks = [("loss", "loss", LOSS, False), ("loss_lm", "loss", LOSS, False), ("loss_vra", "loss", LOSS, False)]
    checks += [("grad_norm", "norm", NORM, True), ("lr", None, RATE, True), ("lr_projector", None, RATE, True)]
    checks += [("supervised_tokens", None, 0, False), ("step", None, 0, False)]
    for key, column, bound, relative in checks:
        expected, found = asdict(ours)[key], theirs.get(key)
        if found is None:
            raise Mismatch(f"metrics.jsonl has no {key}")
        difference = abs(found - expected)
        if relative and expected != 0:
            difference /= abs(expected)
        if column:
            worst[column] = difference if math.isnan(worst[column]) else max(worst[column], difference)
        if not difference <= bound:
            raise Mismatch(f"step {ours.step}: {key} is {found}, not {expected}")


def compare_tensors(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], worst: dict[str, float]) -> None:
    if ours.keys() != theirs.keys():
        raise Mismatch(f"the adapter's tensors differ in {sorted(ours.keys() ^ theirs.keys())[:3]}")
    # A tensor that stayed zero, such as the bias of a projector that no picture reached, must be zero on both sides.
    differences = {name: ((theirs[name] - ours[name]).norm() / ours[name].norm().clamp(min=1e-30)).item() for name in ours}
    name = max(differences, key=differences.get)
    worst["tensor"] = differences[name]
    if not differences[name] <= TENSOR:
        raise Mismatch(f"{name} is off by {differences[name]:.1e}")


if __name__ == "__main__":
    main()
