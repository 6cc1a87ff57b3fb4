"""Loads an adapter directory with PEFT onto the model it was trained from; prints keys that are missing or left over.

usage: peft_load.py ADAPTER_DIR LLAVA_DIR      exits 1 if there are any
"""

import sys
from pathlib import Path

import torch
import transformers
from peft import PeftConfig, get_peft_model
from safetensors.torch import load_file
from transformers import LlavaForConditionalGeneration


def left_over(adapter: Path, llava: Path) -> tuple[list[str], list[str]]:
    """Missing and unexpected keys, of the adapter and of the projector file beside it."""
    base = LlavaForConditionalGeneration.from_pretrained(llava, dtype=torch.float32)
    projector = {f"multi_modal_projector.{name}" for name in base.model.multi_modal_projector.state_dict()}
    model = get_peft_model(base, PeftConfig.from_pretrained(adapter))
    result = model.load_adapter(str(adapter), adapter_name="default")
    found = set(load_file(adapter / "mm_projector.safetensors"))
    return sorted([*result.missing_keys, *(projector - found)]), sorted([*result.unexpected_keys, *(found - projector)])


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    missing, unexpected = left_over(Path(sys.argv[1]), Path(sys.argv[2]))
    for kind, keys in [("missing", missing), ("unexpected", unexpected)]:
        print(f"{kind}: {len(keys)}", *keys, sep="\n  ")
    sys.exit(1 if missing or unexpected else 0)


if __name__ == "__main__":
    main()
