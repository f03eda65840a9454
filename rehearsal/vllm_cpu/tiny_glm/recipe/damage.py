"""`damage.py PART FROM TO`: copy a saved model with noise on the weights of its main layer or of its MTP layer."""

# torch is in vLLM's environment only.
# pyright: basic, reportMissingImports=false
from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch
from checkpoint import read_weights, write_weights

_LAYERS = {"main": "model.layers.0.", "mtp": "model.layers.1."}

# In standard deviations of each tensor: nothing of what was learned is left.
_NOISE = 8.0
_SEED = 0


def main(part: str, source: str, target: str) -> None:
    """Copy and damage."""
    torch.manual_seed(_SEED)
    shutil.copytree(source, target, dirs_exist_ok=True)
    tensors = read_weights(Path(source))
    for name, tensor in tensors.items():
        if name.startswith(_LAYERS[part]) and tensor.ndim > 1:
            tensors[name] = tensor + _NOISE * tensor.std() * torch.randn_like(tensor)
    write_weights(tensors, Path(target))


if __name__ == "__main__":
    main(*sys.argv[1:])
