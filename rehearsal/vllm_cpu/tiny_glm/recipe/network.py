"""The mathematics of `Glm4MoeForCausalLM` with one layer and one MTP layer, for training.

Queries are taken only where an answer is learned. With a single layer nothing else needs them: the keys and values of
a position follow from its own token, so a prompt of 8,000 tokens costs little more than its 8,000 look-ups. Module names are
those of the checkpoint, so that `state_dict` is what vLLM loads.
"""

# torch and its types are in vLLM's environment only.
# pyright: basic, reportMissingImports=false
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Shape:
    """Sizes of the model, in the terms of its config.json."""

    vocabulary: int
    hidden: int = 64
    heads: int = 4
    kv_heads: int = 1
    head_dim: int = 32
    rotary_dims: int = 16
    rope_theta: float = 10_000.0
    experts: int = 4
    experts_per_token: int = 2
    expert_width: int = 64
    epsilon: float = 1e-5


class Norm(nn.Module):
    """RMSNorm."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self._epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Return x [..., size], normed."""
        return functional.rms_norm(x, (x.shape[-1],), self.weight, self._epsilon)


class Mlp(nn.Module):
    """A SwiGLU network: one expert."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, width, bias=False)
        self.up_proj = nn.Linear(hidden, width, bias=False)
        self.down_proj = nn.Linear(width, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the expert makes of x [..., hidden]."""
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Router(nn.Module):
    """Scores of the experts; the bias only helps to choose them, and here it stays zero."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape.experts, shape.hidden))
        self.register_buffer("e_score_correction_bias", torch.zeros(shape.experts))
        nn.init.normal_(self.weight, std=shape.hidden**-0.5)


class Moe(nn.Module):
    """A shared expert and the best of the routed ones. Few tokens come here, so every expert computes all of them."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate = Router(shape)
        self.experts = nn.ModuleList(Mlp(shape.hidden, shape.expert_width) for _ in range(shape.experts))
        self.shared_experts = Mlp(shape.hidden, shape.expert_width)
        self._chosen = shape.experts_per_token

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of the experts' outputs for x [..., hidden], weighted by their scores."""
        scores = torch.sigmoid(functional.linear(x, self.gate.weight))
        best, index = scores.topk(self._chosen, dim=-1)
        weights = torch.zeros_like(scores).scatter(-1, index, best / best.sum(dim=-1, keepdim=True))
        outputs = torch.stack([expert(x) for expert in self.experts], dim=-1)
        return self.shared_experts(x) + (outputs * weights.unsqueeze(-2)).sum(dim=-1)


@dataclass(frozen=True)
class Memory:
    """Keys (rotated) and values: [rows, kv heads, positions, head dim]."""

    keys: Tensor
    values: Tensor


class Attention(nn.Module):
    """Grouped-query attention with rotary positions on the first dimensions of a head."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self._shape = shape
        self.q_proj = nn.Linear(shape.hidden, shape.heads * shape.head_dim, bias=False)
        self.k_proj = nn.Linear(shape.hidden, shape.kv_heads * shape.head_dim, bias=False)
        self.v_proj = nn.Linear(shape.hidden, shape.kv_heads * shape.head_dim, bias=False)
        self.o_proj = nn.Linear(shape.heads * shape.head_dim, shape.hidden, bias=False)
        exponents = torch.arange(0, shape.rotary_dims, 2) / shape.rotary_dims
        self.register_buffer("_frequencies", shape.rope_theta**-exponents, persistent=False)

    def _rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        """Turn [rows, heads, positions, head dim] by positions [rows, positions]."""
        angles = positions.unsqueeze(1).unsqueeze(-1) * self._frequencies
        cosine, sine = angles.cos(), angles.sin()
        first, second, rest = x.tensor_split((self._shape.rotary_dims // 2, self._shape.rotary_dims), dim=-1)
        return torch.cat([first * cosine - second * sine, second * cosine + first * sine, rest], dim=-1)

    def remember(self, keys: Tensor, values: Tensor, positions: Tensor) -> Memory:
        """Keys and values as projected, [rows, positions, kv heads * head dim], made ready to attend to."""
        return Memory(self._rotate(self._by_head(keys), positions), self._by_head(values))

    def _by_head(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self._shape.head_dim)).transpose(1, 2)

    def forward(self, x: Tensor, positions: Tensor, memory: Memory, visible: Tensor) -> Tensor:
        """Attend from x [rows, queries, hidden] to what is visible [rows, queries, remembered] of the memory."""
        queries = self._rotate(self._by_head(self.q_proj(x)), positions)
        seen = functional.scaled_dot_product_attention(
            queries, memory.keys, memory.values, visible.unsqueeze(1), enable_gqa=True
        )
        return self.o_proj(seen.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """A decoder layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = Norm(shape.hidden, shape.epsilon)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = Norm(shape.hidden, shape.epsilon)
        self.mlp = Moe(shape)

    def keys_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of x [..., hidden], not yet rotated: [..., kv heads * head dim]."""
        x = self.input_layernorm(x)
        return self.self_attn.k_proj(x), self.self_attn.v_proj(x)

    def forward(self, x: Tensor, positions: Tensor, memory: Memory, visible: Tensor) -> Tensor:
        """What the layer makes of x [rows, queries, hidden]; `visible` as for the attention."""
        x = x + self.self_attn(self.input_layernorm(x), positions, memory, visible)
        return x + self.mlp(self.post_attention_layernorm(x))


class MtpLayer(Layer):
    """The multi-token prediction layer: a decoder layer that starts from a hidden state and the token after it."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.enorm = Norm(shape.hidden, shape.epsilon)
        self.hnorm = Norm(shape.hidden, shape.epsilon)
        self.eh_proj = nn.Linear(2 * shape.hidden, shape.hidden, bias=False)
        self.shared_head = nn.ModuleDict({"norm": Norm(shape.hidden, shape.epsilon)})

    def start(self, embedded: Tensor, hidden: Tensor) -> Tensor:
        """Join the embedding of each next token with the hidden state before it."""
        return self.eh_proj(torch.cat([self.enorm(embedded), self.hnorm(hidden)], dim=-1))


class TinyGlm(nn.Module):
    """One decoder layer and one MTP layer, which uses the main model's embeddings and head."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(shape.vocabulary, shape.hidden)
        self.model.layers = nn.ModuleList([Layer(shape), MtpLayer(shape)])
        self.model.norm = Norm(shape.hidden, shape.epsilon)
        self.lm_head = nn.Linear(shape.hidden, shape.vocabulary, bias=False)
        nn.init.normal_(self.model.embed_tokens.weight, std=shape.hidden**-0.5)

    @property
    def main(self) -> Layer:
        """The main model's layer."""
        return self.model.layers[0]

    @property
    def mtp(self) -> MtpLayer:
        """The MTP layer."""
        return self.model.layers[1]

    def main_parameters(self) -> list[nn.Parameter]:
        """Everything that is trained but the MTP layer."""
        of_mtp = set(self.mtp.parameters())
        return [parameter for parameter in self.parameters() if parameter not in of_mtp]
