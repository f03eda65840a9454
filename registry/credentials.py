"""Credentials for a registry, as `docker login` leaves them: in its configuration file, or with a credential helper."""

from __future__ import annotations

import base64
import os
import subprocess
from pathlib import Path

from pydantic import BaseModel, ValidationError
from pydantic.alias_generators import to_camel

from registry.errors import NoAnswerError

_HELPER_SECONDS = 60  # a helper may ask a cloud

# What a helper prints when it has none: docker/docker-credential-helpers, credentials/error.go.
_HAS_NONE = "credentials not found"

# The user name that stands for an identity token, which buys access by an exchange that this client does not speak.
_IDENTITY_TOKEN = "<token>"

Credentials = tuple[str, str]
"""A user name and a password."""


class _Entry(BaseModel):
    auth: str = ""
    identitytoken: str = ""


class _Configuration(BaseModel, alias_generator=to_camel):
    auths: dict[str, _Entry] = {}
    creds_store: str = ""
    cred_helpers: dict[str, str] = {}


class _Helped(BaseModel, alias_generator=str.capitalize):
    username: str
    secret: str


def configuration_file() -> Path:
    """Docker's configuration file: in $DOCKER_CONFIG, or in ~/.docker."""
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"


def credentials(key: str) -> Credentials | None:
    """Return the credentials for a registry, or None if there are none; raise `NoAnswerError` if they cannot be read."""
    file = configuration_file()
    try:
        settings = _Configuration.model_validate_json(file.read_bytes())
        helper = settings.cred_helpers.get(key) or settings.creds_store
        return _from_helper(helper, key) if helper else _from_file(settings, key)
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        raise NoAnswerError(f"{file} is no readable Docker configuration; repair it, or docker login again") from None


def _from_file(settings: _Configuration, key: str) -> Credentials | None:
    # Clients have written keys with a scheme and with the version of the API.
    entry = next((row for name, row in settings.auths.items() if _bare(name) == _bare(key)), _Entry())
    if entry.identitytoken:
        raise _identity_token(key)
    if not entry.auth:
        return None
    user, _, password = base64.b64decode(entry.auth, validate=True).decode().partition(":")
    return user, password


def _bare(key: str) -> str:
    return (
        key.removeprefix("https://").removeprefix("http://").removesuffix("/").removesuffix("/v1").removesuffix("/v2")
    )


def _from_helper(helper: str, key: str) -> Credentials | None:
    program = f"docker-credential-{helper}"
    named = f"{program}, which {configuration_file()} names,"
    try:
        ended = subprocess.run(
            [program, "get"], input=key, capture_output=True, text=True, check=False, timeout=_HELPER_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoAnswerError(f"{named} does not run: {error}") from None
    said = (ended.stdout + ended.stderr).strip()
    if ended.returncode != 0 and _HAS_NONE in said:
        return None
    try:
        answer = _Helped.model_validate_json(ended.stdout if ended.returncode == 0 else "")
    except ValidationError:
        raise NoAnswerError(f"{named} has no credentials for {key}: {said or 'it printed nothing'}") from None
    if answer.username == _IDENTITY_TOKEN:
        raise _identity_token(key)
    return answer.username, answer.secret


def _identity_token(key: str) -> NoAnswerError:
    return NoAnswerError(
        f"{configuration_file()} has an identity token for {key}, which is not supported; "
        "log in with a user name and a password or access token"
    )
