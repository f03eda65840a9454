"""`python3 -m weights`: read the environment, fetch, say what happens on standard output."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from .cache import FetchError, Model
from .download import RefusedError
from .fetch import ensure
from .sources import HUB, source_of


def main() -> int:
    """Fetch MODEL at REVISION from WEIGHTS_FROM into HF_HUB_CACHE; return 0, or 1 with one sentence about why not."""
    model = Model(os.environ["MODEL"], os.environ["REVISION"], Path(os.environ["HF_HUB_CACHE"]))
    try:
        ensure(model, source_of(os.environ.get("WEIGHTS_FROM", HUB), model.repository, model.revision), _say)
    except (FetchError, RefusedError) as error:
        _say(str(error))
        return 1
    except OSError as error:
        _say(
            f"{error.filename or model.cache}: {error.strerror}; what was fetched stays and the next start goes on from it"
        )
        return 1
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _end(number: int, _frame: object) -> None:
    os._exit(
        128 + number
    )  # at once, whatever the threads do: an interrupted fetch leaves nothing that could be believed


if __name__ == "__main__":
    # As the first process of a container it has no default handler: without one a deleted pod waits for its grace period.
    signal.signal(signal.SIGTERM, _end)
    os._exit(main())  # not waiting for what other threads are in the middle of
