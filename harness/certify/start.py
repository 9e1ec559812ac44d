"""What a bundle draws when its runs start."""

import secrets
from datetime import UTC, datetime

from harness.base.code import ROOT
from harness.certify.committed import committed_at
from harness.evidence.provenance import Start

NONCE_BYTES = 32


def draw_start() -> Start:
    """A nonce of these runs, and the time of the commit of the code that this process runs."""
    at = committed_at(ROOT)
    return Start(
        nonce=secrets.token_hex(NONCE_BYTES),
        committed=datetime.fromisoformat(at).astimezone(UTC).isoformat() if at else None,
    )
