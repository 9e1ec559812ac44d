"""What a bundle draws when its runs start."""

import os
import secrets
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import harness
from harness.evidence.provenance import Start

NONCE_BYTES = 32


def draw_start() -> Start:
    """A nonce of these runs, and the time of the commit of the code that this process runs."""
    return Start(
        nonce=secrets.token_hex(NONCE_BYTES), committed=_committed(Path(harness.__file__).resolve().parent.parent)
    )


def _committed(root: Path) -> str | None:
    """When the revision of a checkout was committed (ISO 8601, UTC); None outside of one."""
    if not (root / ".git").exists():
        return None
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(root), "show", "--no-patch", "--format=%cI", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=own)
        return datetime.fromisoformat(done.stdout.strip()).astimezone(UTC).isoformat() if not done.returncode else None
    except (FileNotFoundError, ValueError):
        return None
