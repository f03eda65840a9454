"""The catalogue: pins have the form of pins, figures have sources, layouts add up, unknown names say what is known."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from serving import catalogue
from serving.catalogue import Checkpoint, EfaSlot, Engine, InstanceType, Pin
from serving.spelling import UnknownKeyError
from tests.fixtures.catalogue import copied_catalogue
from tests.fixtures.stacks import ROOT

INSTANCE_TYPES = list(catalogue.instance_types().values())
ENGINES = list(catalogue.engines().values())
CHECKPOINTS = list(catalogue.checkpoints().values())
OTHER_IMAGES = ("device-plugin",)
PINS = [(image, tag, pin) for image, tags in catalogue.pins().items() for tag, pin in tags.items()]

EVERY_INSTANCE_TYPE = pytest.mark.parametrize("row", INSTANCE_TYPES, ids=lambda row: row.name)
EVERY_ENGINE = pytest.mark.parametrize("row", ENGINES, ids=lambda row: row.version)
EVERY_CHECKPOINT = pytest.mark.parametrize("row", CHECKPOINTS, ids=lambda row: row.repository)

FILES = sorted((ROOT / "serving" / "catalogue").glob("*.toml"))


def rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every row of a data file: table.name, and the rows inside its lists."""
    for table, named in tomllib.loads(path.read_text(encoding="utf-8")).items():
        for name, row in named.items():
            if isinstance(row, dict):
                yield f"{table}.{name}", row
                yield from ((f"{table}.{name}.prices", price) for price in row.get("prices", ()))


def test_the_data_files() -> None:
    names = ["accelerators", "checkpoints", "engines", "flags", "images", "kubernetes", "pins", "pools"]
    assert [path.stem for path in FILES] == names


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_row_names_its_source(path: Path) -> None:
    found = list(rows(path))
    assert found
    assert [name for name, row in found if len(row.get("source", "")) < len("EC2 API")] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_price_says_where_and_when_it_was_read(path: Path) -> None:
    for name, row in rows(path):
        if name.endswith(".prices"):
            assert row["hourly_usd"] > 0
            assert row["region"] in catalogue.regions()
            assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", row["date"])


# --- pins ----------------------------------------------------------------------------------------------------------


@EVERY_ENGINE
def test_engine_digests(row: Engine) -> None:
    assert row.digest is None or re.fullmatch(r"sha256:[0-9a-f]{64}", row.digest)
    if row.digest:
        assert catalogue.engine_of_image(f"vllm/vllm-openai@{row.digest}") == row


def test_no_two_releases_share_a_digest() -> None:
    digests = [row.digest for row in ENGINES if row.digest]
    assert len(set(digests)) == len(digests) == 5


def test_an_unknown_digest_belongs_to_no_release() -> None:
    assert catalogue.engine_of_image(f"vllm/vllm-openai@sha256:{'0' * 64}") is None
    # Releases without a public digest must not match a reference without one.
    assert catalogue.engine_of_image("vllm/vllm-openai:v0.33.0") is None
    assert catalogue.engine_of_image("") is None


@EVERY_CHECKPOINT
def test_checkpoint_revisions(row: Checkpoint) -> None:
    assert row.revision is None or re.fullmatch(r"[0-9a-f]{40}", row.revision)


def test_checkpoints_whose_revision_nobody_has_published() -> None:
    assert {row.repository for row in CHECKPOINTS if row.revision is None} == {
        "zai-org/GLM-5.3-BF16",
        "Inferact/GLM-5.3-NVFP4",
    }


@pytest.mark.parametrize("name", OTHER_IMAGES)
def test_other_images_are_pinned(name: str) -> None:
    assert re.fullmatch(r"[^@\s]+@sha256:[0-9a-f]{64}", catalogue.image(name).reference)


@pytest.mark.parametrize(("image", "tag", "pin"), PINS)
def test_pins_are_of_images_and_releases_that_the_catalogue_knows(image: str, tag: str, pin: Pin) -> None:
    if image == catalogue.ENGINE_IMAGE:
        assert [row.digest for row in ENGINES if catalogue.engine_tag(row.version) == tag] == [pin.digest]
    else:
        assert tag not in catalogue.image(image).excluded
    assert pin.date >= "2026-11-23"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("engines", f'[engine."0.34.0"]\ndigest = "sha256:{"0" * 64}"'),
        ("images", f'[image.haproxy]\nrepository = "haproxy"\nsource = "a test"\ndigest = "sha256:{"0" * 64}"'),
    ],
)
def test_a_digest_has_no_place_outside_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, text: str
) -> None:
    with copied_catalogue(tmp_path, monkeypatch) as folder:
        with (folder / f"{file}.toml").open("a", encoding="utf-8") as data:
            data.write(f"\n{text}\n")
        with pytest.raises(TypeError, match="multiple values for keyword argument 'digest'"):
            catalogue.engines() if file == "engines" else catalogue.image("haproxy")


def test_the_engines_image_has_no_digest_of_its_own() -> None:
    with pytest.raises(ValueError, match="the catalogue has no digest of image 'vllm'"):
        _ = catalogue.image("vllm").reference


# --- engines -------------------------------------------------------------------------------------------------------


# Version matrix by reading the source of each release.
@pytest.mark.parametrize(
    ("release", "expected"),
    [
        # GLM parser (vllm#45915), indexer cache, runai_streamer (vllm#43163, vllm#46078) without and with MTP, workspace factor
        ("0.23.0", (False, "all-layers", False, False, 5)),
        ("0.24.0", (True, "indexer-layers", False, False, 5)),
        ("0.28.0", (True, "indexer-layers", True, False, 5)),
        ("0.31.0", (True, "indexer-layers", False, False, 5)),
        ("0.33.0", (True, "indexer-layers", True, True, 2)),
    ],
)
def test_what_the_inspected_releases_can_do(release: str, expected: tuple[bool, str, bool, bool, int]) -> None:
    row = catalogue.engine(release)
    assert expected == (
        row.streaming_tool_parser,
        row.indexer_cache,
        row.runai_streamer_safe,
        row.runai_streamer_safe_with_mtp,
        row.prefill_workspace_factor_long,
    )


@pytest.mark.parametrize("release", ["0.26.0", "0.30.0"])
def test_loaders_that_nobody_inspected_count_as_unsafe(release: str) -> None:
    assert not catalogue.engine(release).runai_streamer_safe
    assert not catalogue.engine(release).runai_streamer_safe_with_mtp


@EVERY_ENGINE
def test_release_numbers(row: Engine) -> None:
    assert row.number >= (0, 23, 0)  # the oldest release that serves GLM-5.2 (vLLM recipe)
    assert ".".join(map(str, row.number)) == row.version


# --- model ---------------------------------------------------------------------------------------------------------


def test_layers_of_glm_5_2() -> None:
    # config.json of zai-org/GLM-5.2: full-indexer layers are 0, 1, 2, then 6, 10, ... 74.
    architecture = CHECKPOINTS[0].architecture
    with_indexer = [layer for layer in range(architecture.hidden_layers) if architecture.has_indexer(layer)]
    assert with_indexer == [0, 1, 2, *range(6, 75, 4)]
    assert architecture.indexer_layers == 21


def test_parameters_of_glm_5_2() -> None:
    # 743.4 billion in the main model, as the recipe's "743B total".
    a = CHECKPOINTS[0].architecture
    experts = 75 * a.routed_experts * 3 * a.hidden_size * a.moe_intermediate_size
    dense = 3 * 3 * a.hidden_size * a.dense_intermediate_size
    shared = 75 * a.shared_experts * 3 * a.hidden_size * a.moe_intermediate_size
    attention = a.hidden_size * (a.q_lora_rank + a.kv_lora_rank + a.qk_rope_head_dim)
    attention += a.q_lora_rank * a.attention_heads * (a.qk_nope_head_dim + a.qk_rope_head_dim)
    attention += a.kv_lora_rank * a.attention_heads * (a.qk_nope_head_dim + a.v_head_dim)
    attention += a.attention_heads * a.v_head_dim * a.hidden_size
    vocabulary = 2 * a.vocab_size * a.hidden_size
    total = experts + dense + shared + 78 * attention + vocabulary
    assert total == pytest.approx(743.4e9, rel=0.002)


@pytest.mark.parametrize(
    ("precision", "gib"),
    [
        ("fp8", 703.5),  # Phala, baidu/vLLM-Kunlun#395, vllm#46367: 703 to 704 GiB
        ("bf16", 1403.2),  # total_size of the safetensors index
        ("nvfp4", 433),  # vLLM recipe
    ],
)
def test_checkpoint_sizes(precision: str, gib: float) -> None:
    assert catalogue.checkpoint_for("glm-5.2", precision).bytes / 2**30 == pytest.approx(gib, rel=0.001)


@EVERY_CHECKPOINT
def test_served_names_are_the_recipes(row: Checkpoint) -> None:
    assert row.served_name == f"{row.model}-{row.precision}"


def test_what_a_model_says_of_its_checkpoints() -> None:
    assert catalogue.model_names() == ["glm-5.2", "glm-5.3"]
    said = {(row.model, row.thinking, row.minimum_engine, row.architecture.name) for row in CHECKPOINTS}
    assert said == {("glm-5.2", "switchable", "0.23.0", "GLM-5.2"), ("glm-5.3", "always", "0.28.0", "GLM-5.2")}


# --- machines ------------------------------------------------------------------------------------------------------


@EVERY_INSTANCE_TYPE
def test_efa_slots_add_up(row: InstanceType) -> None:
    slots = row.efa_interfaces
    assert len(slots) == row.efa_interfaces_max
    assert len(set(slots)) == len(slots)
    # AWS's rule: card 0 device 0 is the primary ENA interface; EFA sits at device 1 of card 0, device 0 of other cards.
    assert {slot.device_index for slot in slots if slot.network_card_index == 0} <= {1}
    assert {slot.device_index for slot in slots if slot.network_card_index > 0} == {0}
    assert max(slot.network_card_index for slot in slots) == row.network_cards - 1


@pytest.mark.parametrize(
    ("name", "cards", "interfaces", "first"),
    [
        ("p5e.48xlarge", 32, 32, EfaSlot(network_card_index=0, device_index=1)),
        ("p5en.48xlarge", 16, 16, EfaSlot(network_card_index=0, device_index=1)),
        ("p6-b200.48xlarge", 8, 8, EfaSlot(network_card_index=0, device_index=1)),
        ("p6-b300.48xlarge", 17, 16, EfaSlot(network_card_index=1, device_index=0)),
    ],
)
def test_network_cards(name: str, cards: int, interfaces: int, first: EfaSlot) -> None:
    row = catalogue.instance_type(name)
    assert (row.network_cards, row.efa_interfaces_max, row.efa_interfaces[0]) == (cards, interfaces, first)


@EVERY_INSTANCE_TYPE
def test_machines_carry_eight_gpus_and_leave_room_for_the_system(row: InstanceType) -> None:
    assert row.gpus == 8
    assert row.shape == f"8x{row.gpu.name}"
    assert row.node_memory_gib == 8 * row.gpu.usable_gib
    assert row.allocatable_cpu_millis < row.vcpus * 1000
    assert row.allocatable_memory_mib < row.memory_mib
    # A checkpoint and another beside it fit the node's own NVMe array.
    assert row.nvme_disks * row.nvme_gb_per_disk * 1e9 > 2 * max(checkpoint.bytes for checkpoint in CHECKPOINTS)


@pytest.mark.parametrize(
    ("name", "gib", "mib"),
    [
        ("H200", 139.80, 150_109_880_320 / 2**20),  # torch on a real H200
        ("B200", 179.06, 183_359),  # nvidia-smi and EC2 API; the "183 GiB" of public reports is this figure misread
        ("B300", 268.59, 275_040),  # EC2 API
    ],
)
def test_gpu_memory_is_gib_and_not_the_vendors_figure(name: str, gib: float, mib: float) -> None:
    assert catalogue.gpu(name).usable_gib == gib
    assert gib == pytest.approx(mib / 1024, abs=0.01)


@EVERY_INSTANCE_TYPE
def test_zones_are_ids_of_known_regions(row: InstanceType) -> None:
    assert row.availability_zone_ids
    assert len(set(row.availability_zone_ids)) == len(row.availability_zone_ids)
    for zone in row.availability_zone_ids:
        assert re.fullmatch(r"[a-z]+\d-az\d", zone)
        assert catalogue.region_of_zone(zone) in catalogue.regions()


# EC2 API offerings, mid to late 2026.
@pytest.mark.parametrize(
    ("name", "regions"),
    [
        (
            "p5e.48xlarge",
            ["ap-southeast-2", "ap-southeast-3", "eu-north-1", "eu-west-2", "sa-east-1", "us-east-2", "us-west-2"],
        ),
        (
            "p6-b200.48xlarge",
            ["ap-south-1", "ap-south-2", "eu-north-1", "eu-west-3", "us-east-1", "us-east-2", "us-west-2"],
        ),
    ],
)
def test_regions_of_a_type(name: str, regions: list[str]) -> None:
    assert list(catalogue.instance_type(name).regions) == regions


def test_a_zone_of_an_unknown_region() -> None:
    assert catalogue.region_of_zone("xyz1-az1") is None
    assert catalogue.region_of_zone("use1") is None
    assert catalogue.region_of_zone("us-east-1a") is None


# --- unknown names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("look_up", "name", "message"),
    [
        (
            catalogue.instance_type,
            "p5en.24xlarge",
            "unknown instance type 'p5en.24xlarge'; allowed are p5e.48xlarge, p5en.48xlarge, p6-b200.48xlarge or "
            "p6-b300.48xlarge; did you mean p5en.48xlarge?",
        ),
        (
            catalogue.system_instance_type,
            "m7i.xlrge",
            "unknown system instance type 'm7i.xlrge'; allowed are m7i.2xlarge, m7i.large or m7i.xlarge; "
            "did you mean m7i.xlarge?",
        ),
        (
            catalogue.engine,
            "0.31",
            "unknown vLLM release '0.31'; allowed are 0.23.0, 0.24.0, 0.26.0, 0.28.0, 0.29.0, 0.30.0, 0.31.0 or 0.33.0; "
            "did you mean 0.31.0?",
        ),
        (catalogue.gpu, "h200", "unknown GPU 'h200'; allowed are B200, B300 or H200; did you mean H200?"),
        (
            catalogue.image,
            "device_plugin",
            "unknown image 'device_plugin'; allowed are device-plugin, efa-plugin, lws or vllm; did you mean device-plugin?",
        ),
        (
            catalogue.kubernetes_version,
            "1.99",
            "unknown Kubernetes version '1.99'; allowed are 1.34, 1.35 or 1.36",
        ),
        (
            partial(catalogue.checkpoint_for, "glm-5.2"),
            "FP8",
            "unknown precision of glm-5.2 'FP8'; allowed are bf16, fp8 or nvfp4; did you mean fp8?",
        ),
    ],
)
def test_an_unknown_name_says_what_is_known(look_up: Callable[[str], object], name: str, message: str) -> None:
    with pytest.raises(UnknownKeyError) as refusal:
        look_up(name)
    assert str(refusal.value) == message
