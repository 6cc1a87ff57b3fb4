"""Reads a run's event files with TensorBoard's own reader and compares every curve with metrics.jsonl.

    python tests/reference/tensorboard_check.py RUN_FOLDER
"""

import json
import math
import struct
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

# Curves by the path of their figure in a line of metrics.jsonl; `*` stands for a layer or a group.
CURVES = {
    "loss/total": ["loss"],
    "loss/lm": ["loss_lm"],
    "loss/vra": ["loss_vra"],
    "loss/ross": ["loss_ross"],
    "loss_vra/layer_*": ["loss_vra_layers", "*"],
    "grad_norm/total": ["grad_norm"],
    "grad_norm/*": ["grad_norm_groups", "*"],
    "lr/main": ["lr"],
    "lr/projector": ["lr_projector"],
    "speed/tokens_per_second": ["tokens_per_second"],
    "data/padding_share": ["padding_share"],
}


# Figures of an evaluation by their curves, which have points where there was one.
VALIDATION = {"validation/total": "loss", "validation/lm": "loss_lm", "validation/vra": "loss_vra"}


def figure(line, tag):
    if tag in VALIDATION:
        return line["validation"][VALIDATION[tag]]
    if tag in CURVES:
        return line[CURVES[tag][0]]
    for pattern, path in CURVES.items():
        prefix = pattern.rstrip("*")
        if pattern.endswith("*") and tag.startswith(prefix):
            return line[path[0]].get(tag[len(prefix):])
    return None


def main():
    run = Path(sys.argv[1])
    lines = {line["step"]: line for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())}
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    tags, compared = events.Tags()["scalars"], 0
    for tag in tags:
        for event in events.Scalars(tag):
            expected = figure(lines[event.step], tag)
            if expected is not None:
                expected = struct.unpack("f", struct.pack("f", expected))[0]
                assert math.isclose(event.value, expected, rel_tol=1e-6), (tag, event.step, event.value, expected)
                compared += 1
    missing = [name for name in CURVES if "*" not in name and name not in tags]
    assert not missing, f"no curve {missing}"
    assert {event.step for event in events.Scalars("loss/total")} == set(lines), "a step is missing"
    print(f"{len(tags)} curves, {compared} values equal to metrics.jsonl, {len(lines)} steps")


main()
