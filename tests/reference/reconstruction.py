"""Writes networks/ross.json: what autoencoders and a denoiser with contents out of their names make of contents out of names.

All in f64, but for tables that the reference rounds to f32.
"""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import nn

from cases import AUTOENCODER
from counter import content, probe
from ross import Autoencoder, Denoiser, draw_latents, ungrouped
from teachers import CLIP

FLUX = AUTOENCODER | {
    "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "norm_num_groups": 32, "latent_channels": 16,
    "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
}  # fmt: skip
# By name: configuration, side of the pictures in pixels, side of the grid of visual tokens. Pictures of the first are not resized.
AUTOENCODERS = {
    "as FLUX's": (AUTOENCODER, 24, 3),
    "as Stable Diffusion's": (AUTOENCODER | {"use_quant_conv": True, "layers_per_block": 2, "latent_channels": 3}, 28, 2),
    "without attention": (AUTOENCODER | {"mid_block_add_attention": False, "shift_factor": None}, 14, 1),
}
OPTIONS = {"width": 16, "depth": 2, "heads": 2, "repeats": 3}
PICTURES, GRID, STATES, KEY = 2, 3, 20, 12345


def write_reconstruction(folder: Path) -> None:
    autoencoders = {name: describe_autoencoder(*case) for name, case in AUTOENCODERS.items()}
    flux = AutoencoderKL(**FLUX).encoder
    parameters = sum(parameter.numel() for parameter in flux.parameters())
    figures = {"autoencoders": autoencoders, "denoiser": describe_denoiser(), "flux": {"config": FLUX, "parameters": parameters}}
    (folder / "ross.json").write_text(json.dumps(figures, indent=1) + "\n")


def describe_autoencoder(config: dict, side: int, grid: int) -> dict:
    vae = Autoencoder(fill(AutoencoderKL(**config)))
    pixels = content("pixels", (2, 3, side, side)).double()
    mean, std = (x.double() for x in vae.posterior(pixels, CLIP, grid))
    # Rows of visual tokens, means beside deviations.
    rows = torch.cat([nn.functional.pixel_unshuffle(x, 2).flatten(2).transpose(1, 2).flatten(0, 1) for x in (mean, std)], dim=1)
    return {"config": config, "side": side, "grid": grid, "posterior": probe("posterior", rows)}


def describe_denoiser() -> dict:
    vae = Autoencoder(AutoencoderKL(**AUTOENCODER))
    tokens = GRID * GRID
    denoiser = Denoiser(OPTIONS, vae.width, STATES, GRID)
    fill(denoiser, "denoiser.")
    states = content("states", (PICTURES * tokens, STATES)).double().requires_grad_()
    posterior = content("posterior", (PICTURES * tokens, 2 * vae.width)).double().view(PICTURES, tokens, -1)
    mean, std = (ungrouped(part, GRID) for part in posterior.chunk(2, dim=-1))
    latents = draw_latents(vae, mean, std, KEY)
    loss = denoiser.loss(states.view(PICTURES, tokens, -1), latents, OPTIONS["repeats"], KEY).mean()
    loss.backward()
    named = {f"denoiser.{name}": parameter for name, parameter in denoiser.named_parameters() if parameter.requires_grad}
    gradients = {name: probe(f"grad.{name}", x.grad) for name, x in (named | {"states": states}).items()}
    shape = {"pictures": PICTURES, "tokens": tokens, "states": STATES, "options": OPTIONS, "autoencoder": AUTOENCODER}
    return shape | {"loss": loss.item(), "gradients": gradients}


@torch.no_grad()
def fill(model: nn.Module, prefix: str = "") -> nn.Module:
    for name, parameter in model.named_parameters():
        parameter.copy_(content(prefix + name, tuple(parameter.shape)))
    return model.double()
