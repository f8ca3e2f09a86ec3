"""`meshflow export`: fetches a run as a bundle that `meshflow verify-bundle` checks offline.

Threat: Ledger tampering
"""

import os
from argparse import Namespace
from contextlib import suppress
from pathlib import Path

from app.cli.http_client import ProblemError, api_client
from app.cli.invocation import OK, CommandError, Invocation
from app.domain.run import parse_run_id
from app.offline.bundle_reader import LARGEST_BUNDLE

BROKEN = 3
UNUSABLE = 4
_BROKEN_CODE = "ledger-broken"


def export_run(invocation: Invocation, arguments: Namespace) -> int:
    """0 written, 3 the run does not verify, 4 not found or not written. No half file is left."""
    run_id: str = arguments.run
    if parse_run_id(run_id) is None:
        raise CommandError("RUN must be run_ and 32 hex digits", UNUSABLE)
    output: Path = arguments.output
    draft = output.with_name(f".{output.name}.part")
    try:
        with api_client(invocation, arguments) as api:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(draft, flags, 0o600), "wb") as file:
                path = f"/v1/runs/{run_id}/bundle?fields={arguments.fields}"
                for part in api.download(path, LARGEST_BUNDLE):
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
        draft.replace(output)
    except ProblemError as error:
        code = BROKEN if error.code == _BROKEN_CODE else UNUSABLE
        raise CommandError(str(error), code) from None
    except OSError as error:
        raise CommandError(f"the bundle cannot be written: {error.strerror}", UNUSABLE) from None
    finally:
        with suppress(OSError):
            draft.unlink()
    print(f"written  {output}")
    print("check    meshflow verify-bundle, with a policy that does not come from this server")
    return OK
