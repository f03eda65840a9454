"""How pipeline stages divide a model's layers, and which divisions keep its sparse attention right.

A layer without an indexer of its own uses the top-k indices of the last layer that has one. A stage gets only hidden states from
the stage before it, so a stage that begins with such a layer reads stale indices (vllm#50853).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate, combinations, pairwise

from serving.catalogue import Architecture, Precision
from serving.spelling import listed

FABRIC_PLUGIN = "AWS Libfabric"
"""What aws-ofi-nccl calls itself to NCCL: up to 1.11 this only, later Libfabric or OFI too (`nccl_ofi_interface_nvidia.cpp`)."""


def rank_problem(architecture: Architecture, precision: Precision, gpus: int, stages: int) -> str | None:
    """Return why vLLM cannot divide a model among so many GPUs in so many pipeline stages, or None.

    Within a stage every GPU has the same number of attention heads, and whole FP8 blocks of an expert's columns.
    """
    if gpus % stages:
        return f"{gpus} GPUs do not make {stages} pipeline stages of equal size"
    ranks = gpus // stages
    if architecture.attention_heads % ranks:
        return f"{ranks} GPUs cannot have the same number of {architecture.attention_heads} attention heads each"
    columns = architecture.moe_intermediate_size / ranks
    if precision == "fp8" and columns % architecture.fp8_block:
        return f"{ranks} GPUs cut FP8 blocks: {columns:g} columns of an expert on each, and a block has {architecture.fp8_block}"
    return None


def context_problem(tensor_parallel_size: int, decode_context_parallel_size: int) -> str | None:
    """Return why vLLM cannot deal the KV cache out to so many ranks, or None (`config/parallel.py`, 0.31.0).

    The ranks of a tensor parallel group are cut into groups of that many, and each group keeps the whole cache once.
    """
    if tensor_parallel_size % decode_context_parallel_size == 0:
        return None
    sizes = [str(size) for size in range(1, tensor_parallel_size + 1) if tensor_parallel_size % size == 0]
    return f"{decode_context_parallel_size} does not divide the tensor parallel size, {tensor_parallel_size}; use {listed(sizes)}"


def default_partition(layers: int, stages: int) -> tuple[int, ...]:
    """Return how vLLM divides layers without VLLM_PP_LAYER_PARTITION (`distributed/utils.py`).

    Layers that are left over go to the stages before the last, from the back.
    """
    even, left = divmod(layers, stages)
    return tuple(even + (stages - 1 - left <= stage < stages - 1) for stage in range(stages))


def aligned_partition(architecture: Architecture, stages: int) -> tuple[int, ...]:
    """Return the most even division in which every stage begins with an indexer; of equals the one with the smallest last stage.

    The last stage also holds the output head and the MTP layer. Raises `ValueError` if there is none.
    """
    layers = architecture.hidden_layers
    starts = [layer for layer in range(1, layers) if architecture.has_indexer(layer)]
    divisions = [_sizes((0, *chosen, layers)) for chosen in combinations(starts, stages - 1)]
    if not divisions:
        raise ValueError(f"{architecture.name} cannot be divided into {stages} stages that begin with an indexer")
    return min(divisions, key=lambda sizes: (max(sizes), sizes[-1], sizes))


def stage_layers(partition: Iterable[int]) -> tuple[range, ...]:
    """Return the layers of each stage."""
    return tuple(range(first, last) for first, last in pairwise((0, *accumulate(partition))))


def covers(architecture: Architecture, partition: Sequence[int]) -> bool:
    """Whether a division gives every layer to one stage, and every stage a layer."""
    return sum(partition) == architecture.hidden_layers and min(partition) > 0


def partition_problem(architecture: Architecture, partition: Sequence[int]) -> str | None:
    """Return what is wrong with a division of the layers, or None."""
    if not covers(architecture, partition):
        return f"the model has {architecture.hidden_layers} layers, and every stage needs one"
    for number, layers in enumerate(stage_layers(partition), 1):
        if not architecture.has_indexer(layers[0]):
            return (
                f"stage {number} begins at layer {layers[0]}, which takes its top-k indices from a layer on the stage before "
                f"and gets stale ones; {_right(architecture, len(partition))}"
            )
    return None


def _right(architecture: Architecture, stages: int) -> str:
    if stages > architecture.indexer_layers:
        return f"no division into {stages} stages is right"
    return f"{','.join(map(str, aligned_partition(architecture, stages)))} would be right"


def _sizes(bounds: Sequence[int]) -> tuple[int, ...]:
    return tuple(last - first for first, last in pairwise(bounds))
