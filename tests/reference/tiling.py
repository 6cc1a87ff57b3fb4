"""LLaVA-NeXT: tiles of pictures of many sizes, the order of their visual tokens, and what the library's model makes of them.

Writes `networks/tiling.json`.
"""

import json
from pathlib import Path

import numpy as np
import torch
from transformers import LlavaNextConfig, LlavaNextModel
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from combinations import CLIP, PINPOINTS, llava_config
from counter import content, probe, uniform

SIDE = CLIP["image_size"]
# Width and height: square, wide, tall, tiny, extreme, larger than every candidate, and where unpadding rounds.
SIZES = [(56, 56), (90, 60), (60, 90), (41, 77), (10, 10), (200, 20), (13, 170), (113, 112), (111, 112), (300, 250), (168, 56), (57, 169)]


def picture(width: int, height: int) -> np.ndarray:
    """(H, W, 3) bytes out of the size."""
    values = uniform(f"picture.{width}x{height}", width * height * 3)
    return ((values + 1) * 128).astype(np.uint8).reshape(height, width, 3)


@torch.no_grad()
def write_tiling(folder: Path) -> None:
    square = {"height": SIDE, "width": SIDE}
    processor = LlavaNextImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=square, image_grid_pinpoints=PINPOINTS, do_pad=False)
    config = llava_config("vicuna", "clip")
    text = config["text_config"] | {"num_hidden_layers": 1}
    model = LlavaNextModel(LlavaNextConfig(**config | {"text_config": text, "image_grid_pinpoints": PINPOINTS})).eval()
    for name, parameter in model.named_parameters():
        parameter.copy_(content("model." + name.replace(".vision_model.", "."), tuple(parameter.shape)))
    cases = []
    for width, height in SIZES:
        inputs = processor(picture(width, height), return_tensors="pt", input_data_format="channels_last")
        pixels = inputs["pixel_values"][0]  # (tiles, 3, S, S)
        packed = model.get_image_features(pixels[None], torch.tensor([[height, width]])).pooler_output[0]  # (visual tokens, D)
        cases.append(
            {
                "width": width,
                "height": height,
                "tiles": len(pixels),
                "tokens": len(packed),
                "pixels": probe("pixels", pixels),
                "packed": probe("packed", packed),
            }
        )
    settings = {"pinpoints": PINPOINTS}
    lines = ",\n".join(json.dumps(case) for case in cases)
    (folder / "tiling.json").write_text(json.dumps(settings)[:-1] + ',\n"cases": [\n' + lines + "\n]}\n")
