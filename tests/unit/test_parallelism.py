"""How pipeline stages divide the layers: vLLM's own way, and the ways that keep the sparse attention right."""

from __future__ import annotations

import pytest

from serving import catalogue
from serving.parallelism import aligned_partition, covers, default_partition, partition_problem, stage_layers

GLM = catalogue.checkpoint_for("glm-5.2", "fp8").architecture


@pytest.mark.parametrize(
    ("stages", "sizes"),
    # vLLM's `get_pp_indices`: what is left over goes to the stages before the last, from the back.
    [
        (1, (78,)),
        (2, (39, 39)),
        (3, (26, 26, 26)),
        (4, (19, 20, 20, 19)),
        (5, (15, 16, 16, 16, 15)),
        (8, (9, 10, 10, 10, 10, 10, 10, 9)),
    ],
)
def test_vllms_own_division(stages: int, sizes: tuple[int, ...]) -> None:
    assert default_partition(78, stages) == sizes


@pytest.mark.parametrize(("stages", "sizes"), [(2, (38, 40)), (3, (26, 28, 24)), (4, (18, 20, 20, 20))])
def test_the_most_even_division_whose_stages_begin_with_an_indexer(stages: int, sizes: tuple[int, ...]) -> None:
    assert aligned_partition(GLM, stages) == sizes  # vllm#50853 names 38,40 for two
    assert partition_problem(GLM, sizes) is None


@pytest.mark.parametrize("stages", range(1, 7))
def test_an_aligned_division_covers_every_layer_once(stages: int) -> None:
    sizes = aligned_partition(GLM, stages)
    assert covers(GLM, sizes)
    assert [layer for layers in stage_layers(sizes) for layer in layers] == list(range(78))
    assert all(GLM.has_indexer(layers[0]) for layers in stage_layers(sizes))


def test_no_division_is_left_for_more_stages_than_indexers() -> None:
    with pytest.raises(ValueError, match="cannot be divided into 22 stages"):
        aligned_partition(GLM, 22)


def test_vllms_own_two_stages_begin_in_the_wrong_place() -> None:
    assert partition_problem(GLM, default_partition(78, 2)) == (
        "stage 2 begins at layer 39, which takes its top-k indices from a layer on the stage before and gets stale ones; "
        "38,40 would be right"
    )
