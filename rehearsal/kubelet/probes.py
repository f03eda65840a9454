"""A kubelet's HTTP probes: asked at their period, believed at their thresholds."""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from typing import Any

from rehearsal.kubelet.sandbox import LOOPBACK
from rehearsal.scale import KUBELET_SCALE

Object = dict[str, Any]

# Kubernetes' defaults.
_PERIOD, _TIMEOUT, _FAILURES, _SUCCESSES = 10, 1, 3, 1


@dataclass(frozen=True)
class Answer:
    """What one request of a probe got: whether it counts as a success, and why not."""

    ok: bool
    why: str = ""


def get(port: int, path: str, timeout_seconds: float) -> tuple[int, bytes] | str:
    """Return status and body of a request to loopback, or what went wrong."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=timeout_seconds)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    finally:
        connection.close()


class Probe:
    """One probe of a container. `passing` is None until a threshold has been reached."""

    def __init__(self, spec: Object, port: int) -> None:
        self._path, self._port = spec["httpGet"].get("path", "/"), port
        self._period = spec.get("periodSeconds", _PERIOD) * KUBELET_SCALE
        self._timeout = spec.get("timeoutSeconds", _TIMEOUT)
        self._needed = {False: spec.get("failureThreshold", _FAILURES), True: spec.get("successThreshold", _SUCCESSES)}
        self._due = 0.0
        self._streak = (False, 0)
        self.passing: bool | None = None
        self.why = ""

    def look(self, now: float) -> None:
        """Ask if it is time; `now` is in seconds of any clock."""
        if now < self._due:
            return
        self._due = now + self._period
        answer = self._ask()
        self.why = answer.why
        last, count = self._streak
        self._streak = (answer.ok, count + 1 if last is answer.ok else 1)
        if self._streak[1] >= self._needed[answer.ok]:
            self.passing = answer.ok

    def _ask(self) -> Answer:
        found = get(self._port, self._path, self._timeout)
        if isinstance(found, str):
            return Answer(ok=False, why=found)
        status, body = found
        if 200 <= status < 400:
            return Answer(ok=True)
        return Answer(
            ok=False, why=f"HTTP probe failed with statuscode: {status}: {body.decode(errors='replace').strip()}"
        )
