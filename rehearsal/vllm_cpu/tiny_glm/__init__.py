"""A GLM of 0.3 million parameters that knows one table by heart, for the real vLLM to serve.

It is trained once for each table and user, into the cache: GLM's tokens, chat template and text format, a mixture of
experts, and an MTP layer whose drafts are accepted. What it does not know, it answers with nonsense.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rehearsal.control_plane.cache import cache_folder
from rehearsal.control_plane.install import Progress, Workshop, install_once
from rehearsal.vllm_cpu.environment import Environment, lock_digest
from rehearsal.vllm_cpu.tiny_glm.table import Row, gate_rows

__all__ = ["Row", "TinyGlm", "damaged", "gate_rows", "trained"]

_RECIPE = Path(__file__).with_name("recipe")
_BYTES_PER_VALUE = 4  # float32


@dataclass(frozen=True)
class TinyGlm:
    """A folder that holds one trained model."""

    folder: Path

    def complete(self) -> bool:
        """Whether the model is there."""
        return (self.folder / "config.json").is_file() and (self.folder / "model.safetensors").is_file()

    def kv_bytes_per_token(self, *, mtp: bool) -> int:
        """The size of a token in the KV cache: keys and values of every layer, one more with MTP."""
        config: dict[str, Any] = json.loads((self.folder / "config.json").read_text())
        layers = config["num_hidden_layers"] + (config["num_nextn_predict_layers"] if mtp else 0)
        return layers * 2 * config["num_key_value_heads"] * config["head_dim"] * _BYTES_PER_VALUE


def trained(environment: Environment, rows: Sequence[Row], progress: Progress) -> TinyGlm:
    """The model that knows these rows, trained first if this user has none.

    Raises:
        ControlPlaneError: the training failed; quotes the end of its log.

    """
    table = json.dumps([asdict(row) for row in rows], indent=1)

    def train(workshop: Workshop) -> None:
        progress(f"training a tiny GLM on {len(rows)} prompts, once")
        file = workshop.scratch / "rows.json"
        file.write_text(table)
        seconds = workshop.run(
            "tiny model",
            _script(environment, "train.py", file, workshop.content),
            # Threads that wait must not keep the processor from others that work.
            env={"HOME": str(workshop.scratch), "OMP_WAIT_POLICY": "passive"},
            still=_last_line,
        )
        progress(f"  trained in {seconds:.0f} s")

    return _made(f"tiny-glm-{_key(table)}", train, progress)


def damaged(environment: Environment, model: TinyGlm, part: Literal["main", "mtp"], progress: Progress) -> TinyGlm:
    """The same model with noise on all weights of its main layer or of its MTP layer."""

    def damage(workshop: Workshop) -> None:
        script = _script(environment, "damage.py", part, model.folder, workshop.content)
        workshop.run("damaged model", script, env={"HOME": str(workshop.scratch)})

    return _made(f"{model.folder.name}-damaged-{part}", damage, progress)


def _made(name: str, make: Callable[[Workshop], None], progress: Progress) -> TinyGlm:
    model = TinyGlm(cache_folder() / name)
    install_once(model.folder, make, complete=lambda folder: TinyGlm(folder).complete(), progress=progress)
    return model


def _key(table: str) -> str:
    """What the weights depend on, as 12 hexadecimal digits."""
    parts = [table, lock_digest(), *(file.read_text() for file in sorted(_RECIPE.iterdir()) if file.is_file())]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _script(environment: Environment, name: str, *arguments: str | Path) -> list[str]:
    # -E and -s: nothing of the caller's environment decides what this runs.
    return [str(environment.python), "-E", "-s", str(_RECIPE / name), *map(str, arguments)]


def _last_line(log: str) -> str:
    lines = log.strip().splitlines()
    return lines[-1] if lines else "at work"
