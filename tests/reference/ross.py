"""The reconstructive objective (ROSS): an autoencoder's latents, a diffusion transformer, and the loss of one micro-batch."""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from noise import below, normal

STEPS = 1000


class Autoencoder:
    """diffusers' own; latents of a picture, and their groups of 2 x 2, one for each visual token."""

    def __init__(self, model: nn.Module):
        self.model = model.requires_grad_(False).eval()
        self.width = 4 * model.config.latent_channels

    @torch.no_grad()
    def posterior(self, pixels: Tensor, norm: tuple, grid: int) -> tuple[Tensor, Tensor]:
        """Mean and deviation (B, L, 2 grid, 2 grid) of the latents of the tower's pixels (B, 3, S, S)."""
        mean, std = (torch.tensor(values, dtype=pixels.dtype)[:, None, None] for values in norm)
        side = 2 * grid * 2 ** (len(self.model.config.block_out_channels) - 1)
        pictures = ((pixels * std + mean - 0.5) / 0.5).clamp(-1, 1)
        pictures = F.interpolate(pictures, size=(side, side), mode="bilinear")
        distribution = self.model.encode(pictures).latent_dist
        return distribution.mean, distribution.std

    def scaled(self, latents: Tensor) -> Tensor:
        return (latents - self.model.config.shift_factor) * self.model.config.scaling_factor


def grouped(latents: Tensor) -> Tensor:
    """(B, L, 2 g, 2 g) as (B, 4 L, g, g): channel `4 c + 2 y + x` is channel c at (y, x) of a group."""
    return F.pixel_unshuffle(latents, 2)


def ungrouped(tokens: Tensor, grid: int) -> Tensor:
    """Rows of groups (B, g g, 4 L) as latents (B, L, 2 g, 2 g)."""
    return F.pixel_shuffle(tokens.transpose(1, 2).unflatten(2, (grid, grid)), 2)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        weights = (q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Modulated(nn.Module):
    """What a condition (S, N, W) makes of `parts` shifts, scales and gates; norms have nothing of their own."""

    def __init__(self, width: int, parts: int):
        super().__init__()
        self.parts = parts
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, parts * width))

    def modulation(self, condition: Tensor) -> tuple[Tensor, ...]:
        return self.adaLN_modulation(condition).chunk(self.parts, dim=-1)

    @staticmethod
    def norm(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


class Block(Modulated):
    def __init__(self, width: int, heads: int):
        super().__init__(width, 6)
        self.attn, self.mlp = Attention(width, heads), Mlp(width)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition)
        x = x + gate1 * self.attn(self.norm(x, shift1, scale1))
        return x + gate2 * self.mlp(self.norm(x, shift2, scale2))


class FinalLayer(Modulated):
    def __init__(self, width: int, channels: int):
        super().__init__(width, 2)
        self.linear = nn.Linear(width, channels)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return self.linear(self.norm(x, *self.modulation(condition)))


class StepEmbedder(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, steps: Tensor) -> Tensor:
        frequencies = torch.exp(-math.log(10000) * torch.arange(128, dtype=torch.float32) / 128)
        angles = steps[:, None].float() * frequencies
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=-1).to(self.mlp[0].weight.dtype))


class Patches(nn.Module):
    def __init__(self, channels: int, width: int):
        super().__init__()
        self.proj = nn.Conv2d(channels, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class Net(nn.Module):
    """Noisy latents (S, C, g, g), steps (S) and conditions (S, N, D) to the noise (S, C, g, g)."""

    def __init__(self, channels: int, states: int, width: int, depth: int, heads: int, grid: int):
        super().__init__()
        self.x_embedder, self.t_embedder = Patches(channels, width), StepEmbedder(width)
        self.z_embedder = nn.Sequential(nn.SiLU(), nn.Linear(states, width))
        self.pos_embed = nn.Parameter(positions(grid, width)[None], requires_grad=False)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.final_layer = FinalLayer(width, channels)

    def forward(self, noisy: Tensor, steps: Tensor, conditions: Tensor) -> Tensor:
        x = self.x_embedder(noisy) + self.pos_embed
        condition = self.t_embedder(steps)[:, None] + self.z_embedder(conditions)
        for block in self.blocks:
            x = block(x, condition)
        return self.final_layer(x, condition).transpose(1, 2).reshape(noisy.shape)


class Denoiser(nn.Module):
    def __init__(self, options: dict, channels: int, states: int, grid: int):
        super().__init__()
        self.net = Net(channels, states, options["width"], options["depth"], options["heads"], grid)

    def loss(self, states: Tensor, latents: Tensor, repeats: int, key: int) -> Tensor:
        """Mean over channels and tokens for each sample and repeat, of states (B, N, D) and latents (B, C, g, g); (B, repeats)"""
        batch, channels, grid, _ = latents.shape
        samples = batch * repeats
        # A sample's repeats lie together.
        latents, conditions = (x.repeat_interleave(repeats, dim=0) for x in (latents, F.layer_norm(states, states.shape[-1:])))
        steps = below(STEPS, key, "ross.steps", samples)
        noise = normal(key, "ross.noise", (samples, grid * grid, channels)).to(latents.dtype)
        noise = noise.transpose(1, 2).reshape(latents.shape)
        kept, added = (factor[steps][:, None, None, None].to(latents.dtype) for factor in schedule())
        found = self.net(kept * latents + added * noise, steps, conditions)
        return (noise - found).square().mean((1, 2, 3)).view(batch, repeats)


def draw_latents(vae: Autoencoder, mean: Tensor, std: Tensor, key: int) -> Tensor:
    """Scaled latents of a micro-batch, grouped, out of means and deviations (B, L, 2 g, 2 g)."""
    batch, grid = len(mean), mean.shape[-1] // 2
    noise = normal(key, "ross.latents", (batch * grid * grid, vae.width)).view(batch, grid * grid, -1)
    return grouped(vae.scaled(mean + std * ungrouped(noise.to(mean.dtype), grid)))


def masked_mean(losses: Tensor, whole: Tensor, masking: str) -> Tensor:
    """Of losses (B, repeats), given which rows have their whole picture."""
    takes_part = whole.all() if masking == "every" else whole.any()
    return losses.mean() if takes_part else 0 * losses.sum()


def schedule() -> tuple[Tensor, Tensor]:
    """sqrt(abar) and sqrt(1 - abar) of the cosine schedule, by step."""
    levels = [math.cos((step / STEPS + 0.008) / 1.008 * math.pi / 2) ** 2 for step in range(STEPS + 1)]
    betas = torch.tensor([min(1 - after / before, 0.999) for before, after in zip(levels, levels[1:])], dtype=torch.float64)
    kept = (1 - betas).cumprod(0)
    return kept.sqrt().float(), (1 - kept).sqrt().float()


def positions(grid: int, width: int) -> Tensor:
    """Sines and cosines of the column, then of the row, of each point of a grid. (g g, W)"""
    frequencies = 10000 ** -(torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    angles = torch.arange(grid, dtype=torch.float64)[:, None] * frequencies
    one = torch.cat([angles.sin(), angles.cos()], dim=1)  # (g, W / 2)
    columns, rows = one.repeat(grid, 1), one.repeat_interleave(grid, dim=0)
    return torch.cat([columns, rows], dim=1).float()


def load_autoencoder(folder: Path) -> Autoencoder:
    # Only here, so that everything else runs without that library.
    from diffusers import AutoencoderKL

    return Autoencoder(AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32))
