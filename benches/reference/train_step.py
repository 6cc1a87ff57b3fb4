"""Trains the folder of `viral-wgpu init` in PyTorch, step by step, and prints a JSON line a step.

transformers and PEFT in eager mode, f32. Pictures and tokens of a step are prepared before its time begins, as data loaders do.
"""

import argparse
import json
import os
import time
from pathlib import Path

import torch
import transformers

from batched import BatchedNetwork
from trainer import Trainer, read_config, schedule


class BatchedTrainer(Trainer):
    network_type = BatchedNetwork


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="config.toml of the folder")
    parser.add_argument("--adapter", type=Path, required=True, help="adapter directory to start from")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--no-alignment", action="store_true")
    parser.add_argument("--attention", choices=["eager", "sdpa"], default="sdpa")
    parser.add_argument("--supervised-rows-only", action="store_true", help="logits of positions with a target only")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    # The reference that this builds on asks for one thread and deterministic kernels; here speed counts.
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(args.threads)

    config = read_config(args.config)
    config["train"]["steps"] = args.steps
    if args.no_alignment:
        config["vra"]["enabled"] = False
    BatchedNetwork.attention = args.attention
    BatchedNetwork.supervised_rows_only = args.supervised_rows_only
    trainer = BatchedTrainer(config, args.adapter)
    for step in range(args.steps):
        print(json.dumps(run_step(trainer, step)), flush=True)


def run_step(trainer: Trainer, step: int) -> dict:
    """One optimiser step, and what it yields."""
    options, parameters = trainer.options, list(trainer.network.trainable().values())
    batch, accumulation = options["batch"], options["accumulation"]
    positions = range(step * batch * accumulation, (step + 1) * batch * accumulation)
    samples = [trainer.samples[position % len(trainer.samples)] for position in positions]
    pixels = [trainer.pixels(sample.image) for sample in samples]

    start = time.perf_counter()
    trainer.optimizer.zero_grad(set_to_none=True)
    loss_lm = loss_vra = tokens = 0
    for first in range(0, len(samples), batch):
        loss, lm, vra, count = trainer.network(samples[first : first + batch], pixels[first : first + batch])
        (loss / accumulation).backward()
        loss_lm, loss_vra, tokens = loss_lm + lm.item() / accumulation, loss_vra + vra.item() / accumulation, tokens + count
    factor = schedule(step, trainer.steps, options["warmup_ratio"])
    for group in trainer.optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    limit = options["max_grad_norm"] or float("inf")
    norm = torch.nn.utils.clip_grad_norm_(parameters, limit).item()
    trainer.optimizer.step()
    seconds = time.perf_counter() - start
    loss = loss_lm + trainer.network.vra["weight"] * loss_vra
    return dict(step=step, loss=loss, loss_lm=loss_lm, loss_vra=loss_vra, grad_norm=norm, tokens=tokens, seconds=seconds)


if __name__ == "__main__":
    main()
