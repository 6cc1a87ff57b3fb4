"""One training step in PyTorch, of the models whose config.json a folder of `viral-wgpu init` holds: what `viral-wgpu bench step` measures.

transformers and PEFT on random weights, nothing is downloaded: the base in bfloat16, or its language model's matrices in NF4 by
bitsandbytes; adapters, projectors and AdamW in f32 under autocast; SDPA and gradient checkpointing; logits where there is a target. Prints
one JSON object.
"""

import argparse
import json
import resource
import statistics
import time
import tomllib
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--base", choices=["bf16", "nf4"], default="bf16")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--tokens", type=int, required=True, help="of a sample, visual tokens included")
    parser.add_argument("--targets", type=int, required=True, help="supervised tokens of a sample")
    parser.add_argument("--steps", type=int, default=5, help="that are measured, after one that is not")
    parser.add_argument("--no-alignment", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    config = tomllib.loads((args.folder / "config.toml").read_text())
    network = Network(args.folder, config, args.base, not args.no_alignment, args.device)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config["train"]["lr"], weight_decay=0.0)
    batch = network.made_up_batch(args.batch, args.tokens, args.targets)
    if args.device == "cuda":
        # What it took to make the model is no part of a step.
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    forward, update, losses = [], [], []
    for _ in range(args.steps + 1):
        start = clock(args.device)
        with torch.autocast(args.device, dtype=torch.bfloat16):
            loss = network(*batch)
        loss.backward()
        middle = clock(args.device)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        end = clock(args.device)
        forward.append(middle - start)
        update.append(end - middle)
        losses.append(loss.item())
    seconds = [statistics.median(times[1:]) for times in (forward, update)]
    cuda = args.device == "cuda"
    print(json.dumps({
        "program": f"torch {torch.__version__}, transformers {transformers.__version__}",
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "micro_batch_seconds": seconds[0],
        "update_seconds": seconds[1],
        "tokens_per_second": args.batch * args.tokens / sum(seconds),
        "device_bytes": torch.cuda.max_memory_allocated() if cuda else None,
        "reserved_bytes": torch.cuda.max_memory_reserved() if cuda else None,
        "process_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "trained_parameters": sum(parameter.numel() for parameter in trained),
        "losses": losses,
    }))


def clock(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


class Network(nn.Module):
    def __init__(self, folder: Path, config: dict, base: str, alignment: bool, device: str):
        super().__init__()
        self.vra, self.device = config["vra"], device
        llava = build(transformers.LlavaForConditionalGeneration, folder / config["model"]["path"], device)
        llava.requires_grad_(False)
        if base == "nf4":
            quantise(llava)
        lora = config["lora"]
        names = "|".join(LINEARS)
        lora = LoraConfig(
            r=lora["r"],
            lora_alpha=lora["alpha"],
            lora_dropout=lora["dropout"],
            target_modules=rf".*language_model\.layers\.\d+\.(self_attn|mlp)\.({names})",
            task_type="CAUSAL_LM",
        )
        self.peft = get_peft_model(llava, lora)
        self.llava = self.peft.base_model.model
        self.llava.gradient_checkpointing_enable({"use_reentrant": False})
        self.llava.train()
        self.llava.model.multi_modal_projector.float().requires_grad_(True)
        self.teacher = self.projector = None
        if alignment:
            self.teacher = build(transformers.AutoModel, folder / self.vra["teacher"], device).eval().requires_grad_(False)
            text, middle = self.llava.config.text_config.hidden_size, self.vra["projector_dim"]
            target = self.teacher.config.hidden_size
            layers = nn.Linear(text, middle), nn.SiLU(), nn.Linear(middle, middle), nn.SiLU(), nn.Linear(middle, target)
            self.projector = nn.Sequential(*layers).to(device)

    def made_up_batch(self, batch: int, tokens: int, targets: int) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels (B, 3, S, S), ids (B, T) without the visual tokens, positions with a target (S)."""
        side, patch = (getattr(self.llava.config.vision_config, key) for key in ("image_size", "patch_size"))
        ids = torch.randint(3, 64, (batch, tokens - (side // patch) ** 2), device=self.device)
        ends = torch.arange(batch, device=self.device)[:, None] * tokens + torch.arange(tokens - targets - 1, tokens - 1, device=self.device)
        return torch.rand(batch, 3, side, side, device=self.device) * 2 - 1, ids, ends.flatten()

    def forward(self, pixels: Tensor, ids: Tensor, ends: Tensor) -> Tensor:
        model = self.llava.model
        with torch.no_grad():
            states = model.vision_tower(pixels.bfloat16(), output_hidden_states=True).hidden_states
            features = states[self.llava.config.vision_feature_layer][:, 1:]  # (B, N, Dz)
        visual = model.multi_modal_projector(features)
        text = self.llava.get_input_embeddings()(ids)
        count = visual.shape[1]
        embed = torch.cat([text[:, :1], visual.to(text.dtype), text[:, 1:]], 1)  # (B, T, D)
        wanted = self.projector is not None
        decoder = model.language_model(inputs_embeds=embed, output_hidden_states=wanted, use_cache=False)
        hidden = decoder.last_hidden_state.flatten(0, 1)[ends]
        loss = F.cross_entropy(self.llava.lm_head(hidden).float(), ids[:, -1:].expand(-1, len(ends) // len(ids)).flatten())
        if wanted:
            with torch.no_grad():
                side = round(count**0.5) * self.teacher.config.patch_size
                small = F.interpolate(pixels, size=(side, side), mode="bilinear", align_corners=False)
                target = self.teacher(small.bfloat16()).last_hidden_state[:, -count:]  # (B, N, d)
            for layer in self.vra["layers"]:
                states = self.projector(decoder.hidden_states[layer][:, 1 : 1 + count])
                similarity = F.cosine_similarity(states.float(), target.float(), dim=-1).mean()
                loss = loss - self.vra["weight"] * similarity / len(self.vra["layers"])
        return loss


def build(kind: type, folder: Path, device: str) -> nn.Module:
    """A model of random weights in bfloat16."""
    config = transformers.AutoConfig.from_pretrained(folder)
    config._attn_implementation = "sdpa"
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            return kind.from_config(config) if kind is transformers.AutoModel else kind(config)
    finally:
        torch.set_default_dtype(default)


def quantise(llava: nn.Module) -> None:
    """The linear maps of the decoder's layers as bitsandbytes has them."""
    import bitsandbytes as bnb

    layers = llava.model.language_model.layers
    for module in [module for layer in layers for module in layer.modules()]:
        for name, linear in list(module.named_children()):
            if not isinstance(linear, nn.Linear):
                continue
            device, bias = linear.weight.device, linear.bias is not None
            small = bnb.nn.Linear4bit(
                linear.in_features, linear.out_features, bias, compute_dtype=torch.bfloat16, compress_statistics=False, quant_type="nf4", device="meta"
            )
            small.weight = bnb.nn.Params4bit(
                linear.weight.data.cpu(), requires_grad=False, compress_statistics=False, quant_type="nf4", blocksize=64, module=small
            )
            small.bias = linear.bias
            setattr(module, name, small.to(device))
            del linear
    llava.is_loaded_in_4bit = True


if __name__ == "__main__":
    main()
