"""Position tables at other grids and distances, as the networks' own code resamples them. Writes `networks/positions.json`."""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from counter import content, probe
from transformers.models.sam.modeling_sam import SamVisionAttention

WIDTH = 3


def offset_bicubic(table: Tensor, grid: int) -> Tensor:
    """The code of DINOv2 and Depth Anything: the scale is (grid + 0.1) / stored side."""
    side = table.shape[-1]
    return F.interpolate(table, scale_factor=((grid + 0.1) / side,) * 2, mode="bicubic", antialias=False)


# Filter of the program's, the call that it stands for, stored grid, grid, and whether a class token is in front.
CASES = [
    # transformers' DINOv2, CLIP and SigLIP
    ("bicubic", lambda t, n: F.interpolate(t, size=(n, n), mode="bicubic", align_corners=False), 37, 24, True),
    ("bicubic", lambda t, n: F.interpolate(t, size=(n, n), mode="bicubic", align_corners=False), 24, 27, False),
    # timm, and DINOv2 with registers
    ("antialiased_bicubic", lambda t, n: F.interpolate(t, size=(n, n), mode="bicubic", antialias=True), 37, 24, True),
    ("antialiased_bicubic", lambda t, n: F.interpolate(t, size=(n, n), mode="bicubic", antialias=True), 16, 27, True),
    ("offset_bicubic", offset_bicubic, 37, 24, True),
    ("offset_bicubic", offset_bicubic, 37, 27, True),
    # RADIO
    ("bilinear", lambda t, n: F.interpolate(t, size=(n, n), mode="bilinear", align_corners=False), 128, 24, False),
    ("bilinear", lambda t, n: F.interpolate(t, size=(n, n), mode="bilinear", align_corners=False), 128, 27, False),
]


# Rows of a stored table of relative positions, and the points on an axis that it is used for.
DISTANCES = [(27, 14), (27, 24), (127, 14), (9, 4)]


def write_positions(folder: Path) -> None:
    lines = []
    for stored, points in DISTANCES:
        table = content("rel_pos_h", (stored, WIDTH))
        rows = SamVisionAttention.get_rel_pos(None, points, points, table).reshape(-1, WIDTH)
        case = {"filter": "relative", "stored": stored, "points": points, "table": probe("table", rows)}
        lines.append(json.dumps(case | {"rows": [[float(f"{x:.9g}") for x in rows[row]] for row in (0, points + 1, -1)]}))
    for name, resample, side, grid, has_class in CASES:
        extra = int(has_class)
        table = content("pos_embed", (extra + side * side, WIDTH))
        grid_map = table[extra:].reshape(1, side, side, WIDTH).permute(0, 3, 1, 2)
        resampled = resample(grid_map, grid)[0].flatten(1).T
        assert resampled.shape == (grid * grid, WIDTH)
        result = torch.cat([table[:extra], resampled])
        case = {"filter": name, "side": side, "grid": grid, "extra": extra, "table": probe("table", result)}
        lines.append(json.dumps(case | {"rows": [[float(f"{x:.9g}") for x in result[row]] for row in (extra, extra + grid + 1, -1)]}))
    (folder / "positions.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")
