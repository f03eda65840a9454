"""The model as a folder that vLLM serves: config.json, weights, tokenizer."""

# torch, safetensors and transformers are in vLLM's environment only.
# pyright: basic, reportMissingImports=false
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from network import Shape, TinyGlm
from safetensors.torch import load_file, save_file
from tokenizer import END_OF_TEXT, OBSERVATION, USER
from torch import Tensor
from transformers import PreTrainedTokenizerFast

WEIGHTS = "model.safetensors"

# GLM-5.2's own.
_POSITIONS = 1_048_576


def save(model: TinyGlm, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write everything that `vllm serve FOLDER` reads."""
    ends = [tokenizer.convert_tokens_to_ids(token) for token in (END_OF_TEXT, USER, OBSERVATION)]
    generation = {"eos_token_id": ends, "pad_token_id": ends[0], "do_sample": False}
    _write(folder / "config.json", _config(model.shape) | {"eos_token_id": ends, "pad_token_id": ends[0]})
    _write(folder / "generation_config.json", generation)
    tokenizer.save_pretrained(folder)
    tensors = model.state_dict()
    tensors["model.layers.1.embed_tokens.weight"] = tensors["model.embed_tokens.weight"].clone()
    tensors["model.layers.1.shared_head.head.weight"] = tensors["lm_head.weight"].clone()
    write_weights(tensors, folder)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of a saved model by name."""
    return load_file(folder / WEIGHTS)


def write_weights(tensors: dict[str, Tensor], folder: Path) -> None:
    """Write tensors as a model's weights."""
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def _config(shape: Shape) -> dict[str, Any]:
    rotary = shape.rotary_dims / shape.head_dim
    return {
        "architectures": ["Glm4MoeForCausalLM"],
        "model_type": "glm4_moe",
        "dtype": "float32",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "hidden_act": "silu",
        "rms_norm_eps": shape.epsilon,
        "tie_word_embeddings": False,
        "max_position_embeddings": _POSITIONS,
        "num_hidden_layers": 1,
        "num_nextn_predict_layers": 1,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "attention_bias": False,
        "use_qk_norm": False,
        "partial_rotary_factor": rotary,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": shape.rope_theta,
            "partial_rotary_factor": rotary,
        },
        "first_k_dense_replace": 0,
        "intermediate_size": shape.expert_width,
        "moe_intermediate_size": shape.expert_width,
        "n_routed_experts": shape.experts,
        "num_experts_per_tok": shape.experts_per_token,
        "n_shared_experts": 1,
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.0,
        "n_group": 1,
        "topk_group": 1,
    }


def _write(file: Path, value: dict[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=2) + "\n")
