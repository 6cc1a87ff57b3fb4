"""Writes tests/fixtures: the inputs of every case and what training them must give. README.md says what the files hold."""

import argparse
import json
import re
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path

import peft
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from cases import CASES, Case, make_shared
from chat import write_chat
from combinations import BASE, write_networks
from data import IGNORE
from network import Network
from objectives import write_objectives
from positions import write_positions
from precision import write_precision
from reconstruction import write_reconstruction
from tiling import write_tiling
from toys import write_adapter
from trainer import Trainer, read_config

FIXTURES = Path(__file__).parents[1] / "fixtures"
# Another CPU sums in another order; what is compared across machines may differ by this much, relative to a tensor's norm.
TOLERANCE = 1e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the committed files instead of replacing them")
    check = parser.parse_args().check
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) / "fixtures"
        make_shared(root / "shared")
        for case in CASES:
            write_inputs(root / case.name, case)
            write_expected(root / case.name, case)
        write_objectives(root / "objectives")
        write_chat(root / "chat", root / BASE / "llava" / "tokenizer.json")
        write_networks(root / "networks", root / BASE)
        write_precision(root / "networks", root / BASE)
        write_tiling(root / "networks")
        write_positions(root / "networks")
        write_reconstruction(root / "networks")
        if check:
            compare(root, FIXTURES)
        else:
            shutil.rmtree(FIXTURES, ignore_errors=True)
            shutil.copytree(root, FIXTURES, copy_function=shutil.copyfile)
    for folder in sorted(FIXTURES.iterdir()):
        print(f"{folder.name:10} {size(folder) / 1e3:7.0f} kB")
    print(f"{'total':10} {size(FIXTURES) / 1e3:7.0f} kB")


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def write_inputs(folder: Path, case: Case) -> None:
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(case.config)
    if case.records:
        (folder / "train.json").write_text(json.dumps(case.records, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if case.make:
        case.make(folder)
    if case.adapter_seed is None:
        return
    config = read_config(folder / "config.toml")
    write_adapter(folder / "adapter", Network(config, adapter=None), case.adapter_seed)
    if case.target_list:
        file = folder / "adapter" / "adapter_config.json"
        settings = json.loads(file.read_text())
        settings |= {"target_modules": sorted(config["lora"]["targets"]), "exclude_modules": ".*vision_tower.*"}
        file.write_text(json.dumps(settings, indent=2) + "\n")


def write_expected(folder: Path, case: Case) -> None:
    trainer = Trainer(read_config(folder / "config.toml"))
    parameters = trainer.network.trainable()
    steps = []
    for step, outputs in trainer.run():
        steps.append(asdict(step))
        if step.step == 0:
            gradients = {name: parameter.grad.clone() for name, parameter in parameters.items()}
            rows, activations = describe(trainer, outputs[0])
    expected = {
        "versions": {module.__name__: module.__version__ for module in (torch, transformers, peft)},
        "samples": [asdict(sample) for sample in trainer.samples],
        "rows": rows,
        "steps": steps,
        "gradient_norms": {name: gradient.norm().item() for name, gradient in gradients.items()},
        "final_norms": {name: parameter.norm().item() for name, parameter in parameters.items()},
    }
    (folder / "expected.json").write_text(dump(expected), encoding="utf-8")
    keys = {name: list(tensor.shape) for name, tensor in peft.get_peft_model_state_dict(trainer.network.peft).items()}
    (folder / "peft_keys.json").write_text(dump(keys))
    if case.full:
        tensors = dict(activations)
        tensors |= {f"grad.{name}": gradient for name, gradient in gradients.items()}
        tensors |= {f"final.{name}": parameter for name, parameter in parameters.items()}
        tensors = {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
        save_file(tensors, folder / "expected.safetensors", metadata={"format": "pt"})


def describe(trainer: Trainer, output) -> tuple[list[dict], dict[str, Tensor]]:
    """The rows of the first micro-batch, in words and in tensors; padding is left out."""
    rows, tensors = [], {}
    for b, length in enumerate(output.lengths):
        sample = trainer.samples[b]
        labels = output.labels[b, :length]
        is_target = labels[1:] != IGNORE
        rows.append(
            {
                "sample": b,
                "length": length,
                "targets": int(is_target.sum()),
                "contributes": output.targets[b] is not None,
            }
        )
        for k, states in enumerate(output.hidden):
            tensors[f"hidden.{k}.{b}"] = states[b, :length]
        tensors[f"logits.{b}"] = output.logits[b, : length - 1][is_target]
        if sample.image is not None:
            tensors[f"pixels.{b}"] = trainer.pixels(sample.image)
            tensors[f"clip.{b}"] = output.features[b]
        if output.targets[b] is not None:
            tensors[f"target.{b}"] = output.targets[b]
    return rows, tensors


def dump(value: object) -> str:
    """Indented JSON with each list of numbers on one line."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    return re.sub(r"\[[^][{}\"]*\]", lambda m: re.sub(r"\s+", " ", m[0]).replace("[ ", "[").replace(" ]", "]"), text) + "\n"


def compare(ours: Path, theirs: Path) -> None:
    """Files must be the same, but for the last digits of what training gave."""
    names = {path.relative_to(root) for root in (ours, theirs) for path in root.rglob("*") if path.is_file()}
    for name in sorted(names):
        a, b = ours / name, theirs / name
        assert a.exists() and b.exists(), f"{name} is on one side only"
        if name.name in ("expected.safetensors", "features.safetensors"):
            x, y = load_file(a), load_file(b)
            assert set(x) == set(y), name
            for key in x:
                assert (x[key] - y[key]).norm() <= TOLERANCE * y[key].norm(), f"{name}: {key}"
        elif name.name in ("expected.json", "cases.json", "precision.json", "tiling.json", "positions.json", "ross.json"):
            assert close(json.loads(a.read_text()), json.loads(b.read_text())), name
        else:
            assert a.read_bytes() == b.read_bytes(), name


def close(a: object, b: object) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(close(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(close, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b) <= TOLERANCE * max(1.0, abs(b))
    return a == b


if __name__ == "__main__":
    main()
