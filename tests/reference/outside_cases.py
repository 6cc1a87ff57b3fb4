"""Draws one random case for `outside_check.py`."""

import json
import random
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from network import Network
from toys import CORPUS, DIALECTS, LlavaShape, TeacherShape, write_adapter, write_llava, write_picture, write_teacher
from trainer import Trainer, read_config

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
STEPS = 12


def write_case(folder: Path, seed: int) -> str:
    """Writes a whole case folder and returns a line about it."""
    rng = random.Random(seed)
    llava, teacher = draw_llava(rng), draw_teacher(rng)
    dialect, shards = rng.choice(sorted(DIALECTS)), rng.choice([1, 1, 2, 3])
    dtype = rng.choice([torch.float32, torch.bfloat16, torch.float16])
    write_llava(folder / "llava", llava, seed, dtype, dialect, shards)
    write_teacher(folder / "dinov2", teacher, seed + 1)

    batch, accumulation = rng.randint(1, 3), rng.randint(1, 3)
    pictures = []
    for i in range(4):
        pictures.append(f"{i}.png")
        mode = rng.choice(["RGB", "RGB", "L", "P", "RGBA"])
        write_picture(folder / "images" / pictures[-1], rng.randint(16, 160), rng.randint(16, 160), seed * 10 + i, mode)
    records = [draw_record(rng, i, pictures) for i in range(batch * accumulation * rng.randint(1, 3))]
    write_records(folder, rng, records)

    layers = sorted(rng.sample(range(llava.layers + 1), rng.choice([1, 1, 2])))
    fresh = seed % 2 == 1
    sections = {
        "model": {"path": "llava"} | ({} if fresh else {"adapter": "adapter"}),
        "vra": {
            "enabled": rng.random() < 0.9,
            "teacher": "dinov2",
            "layers": layers,
            "weight": round(rng.uniform(0.2, 1.5), 2),
            "projector_dim": rng.randint(12, 80),
            "multiple_projectors": len(layers) > 1 and rng.random() < 0.5,
            "pixel_norm": rng.choice(["native", "native", "inherit"]),
        },
        "lora": {
            "r": rng.randint(1, 12),
            "alpha": rng.randint(2, 16),
            "dropout": 0.0,
            "targets": LINEARS if rng.random() < 0.5 else sorted(rng.sample(LINEARS, rng.randint(1, 5))),
        },
        "data": {
            "train": "train.jsonl" if (folder / "train.jsonl").exists() else "train.json",
            "images": "images",
            "template": rng.choice(["vicuna_v1", "vicuna_v1", "llava_v1"]),
            "image_aspect": rng.choice(["pad", "pad", "square"]),
            "order": "sequential",
        },
        "train": {
            "steps": STEPS,
            "batch": batch,
            "accumulation": accumulation,
            "lr": 10 ** rng.uniform(-4, -2.7),
            "projector_lr": 10 ** rng.uniform(-4, -3),
            "warmup_ratio": rng.choice([0.0, 0.03, 0.25]),
            "weight_decay": rng.choice([0.0, 0.0, 0.1]),
            "betas": rng.choice([[0.9, 0.999], [0.8, 0.95]]),
            "max_grad_norm": rng.choice([0.0, 0.0, 0.5]),
            "max_length": 2048,
            "precision": "f32",
        },
        "output": {"dir": "run"},
    }
    write_config(folder, sections)
    if not fresh:
        draw_adapter(folder, rng, seed + 2)
    if rng.random() < 0.3:
        sections["train"]["max_length"] = tight_length(folder)
        write_config(folder, sections)
    heads = f"{llava.heads}/{llava.kv_heads} heads of {llava.head_dim}"
    return (
        f"D {llava.hidden}, {llava.layers} layers, {heads}, {llava.image} px, {dialect} x{shards} {str(dtype)[6:]}, "
        f"teacher {teacher.image}/{teacher.patch}, r {sections['lora']['r']}, {batch} x {accumulation}, layers {layers}, "
        + ("fresh" if fresh else "adapter")
    )


def draw_llava(rng: random.Random) -> LlavaShape:
    kv_heads = rng.randint(1, 3)
    heads = kv_heads * rng.choice([1, 1, 2, 3])
    head_dim = rng.choice([8, 10, 16, 24, 32, 64])
    clip_heads = rng.randint(1, 3)
    patch = rng.choice([14, 14, 16, 8])
    return LlavaShape(
        # The width need not be heads times head width.
        hidden=heads * (head_dim if rng.random() < 0.8 else rng.randint(5, 40)),
        intermediate=rng.randint(20, 150),
        layers=rng.randint(2, 4),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        clip_hidden=clip_heads * rng.choice([8, 12, 16, 32]),
        clip_intermediate=rng.randint(20, 100),
        clip_layers=rng.randint(2, 4),
        clip_heads=clip_heads,
        image=patch * rng.randint(2, 6),
        patch=patch,
        merges=rng.randint(60, 240),
        rms_eps=rng.choice([1e-5, 1e-6]),
        rope_theta=rng.choice([10000.0, 500.0, 1e6]),
    )


def draw_teacher(rng: random.Random) -> TeacherShape:
    heads = rng.randint(1, 3)
    patch = rng.choice([14, 14, 14, 16, 8])
    return TeacherShape(
        hidden=heads * rng.choice([8, 16, 20]),
        layers=rng.randint(1, 3),
        heads=heads,
        image=patch * rng.randint(2, 8),
        patch=patch,
        mlp_ratio=rng.randint(2, 4),
        swiglu=rng.random() < 0.2,
    )


def draw_record(rng: random.Random, i: int, pictures: list[str]) -> dict:
    """One to three rounds; three quarters of the records have a picture, mostly in the first round."""
    rounds = rng.randint(1, 3)
    turns = [draw_text(rng) for _ in range(2 * rounds)]
    record = {"id": f"record {i}" if rng.random() < 0.8 else i}
    if rng.random() < 0.75:
        record["image"] = rng.choice(pictures)
        at = 0 if rng.random() < 0.7 else 2 * rng.randrange(rounds)
        turns[at] = rng.choice(["<image>\n{}", "{}\n<image>", "<image> {}"]).format(turns[at])
    if rng.random() < 0.1:
        turns.insert(0, "Good morning.")
        roles = ["gpt", "human"]
    else:
        roles = ["human", "gpt"]
    record["conversations"] = [{"from": roles[j % 2], "value": turn} for j, turn in enumerate(turns)]
    return record


def draw_text(rng: random.Random) -> str:
    words = CORPUS.read_text(encoding="utf-8").split()
    words += ["Zürich", "naïve", "図", "🙂", "42", "3.14", "x_1", "(so)", "a\nb", "--", "tab\there", "don't"]
    return " ".join(rng.choice(words) for _ in range(rng.randint(1, 9)))


def write_records(folder: Path, rng: random.Random, records: list[dict]) -> None:
    if rng.random() < 0.5:
        (folder / "train.json").write_text(json.dumps(records, ensure_ascii=rng.random() < 0.5), encoding="utf-8")
    else:
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
        (folder / "train.jsonl").write_text("".join(lines), encoding="utf-8")


def write_config(folder: Path, sections: dict[str, dict]) -> None:
    """JSON's spelling of strings, numbers, booleans and flat lists is TOML's too."""
    text = ""
    for section, values in sections.items():
        text += f"[{section}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
    (folder / "config.toml").write_text(text)


def draw_adapter(folder: Path, rng: random.Random, seed: int) -> None:
    adapter = folder / "adapter"
    write_adapter(adapter, Network(read_config(folder / "config.toml"), adapter=None), seed)
    if rng.random() < 0.3:
        file = adapter / "adapter_model.safetensors"
        old = {k.replace("model.language_model.", "language_model.model."): v for k, v in load_file(file).items()}
        save_file(old, file, metadata={"format": "pt"})


def tight_length(folder: Path) -> int:
    """A `max_length` that cuts the longest rows but leaves every sample a target."""
    trainer = Trainer(read_config(folder / "config.toml"))
    n_visual = trainer.network.grid() ** 2
    needed = []
    for sample in trainer.samples:
        first = next(i for i, label in enumerate(sample.labels) if label >= 0)
        needed.append(first + 1 + (n_visual - 1 if sample.image and min(sample.ids[:first]) < 0 else 0))
    return max(needed)
