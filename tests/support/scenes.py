"""A finished run as the scene of another: its reference half is taken as it is, the subject's runs are made anew."""

import os
import shutil
from pathlib import Path

from harness.evidence.provenance import SOURCE
from harness.runners.registry import digest_of_runner
from tests.support.bundles import edit_json


def without_subject(finished: Path, out: Path, subject: str | None = None) -> Path:
    """A directory in which all runs of a finished one are done but the subject's, as if they had been started with this
    subject.

    Files are hard links, so nothing is copied; those in the root are copies, because they are written in place.
    """
    for path in (path for path in finished.rglob("*") if path.is_file()):
        name = path.relative_to(finished)
        if len(name.parts) == 1:
            out.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, out / name)
        elif not name.parts[1].startswith("subject"):
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            os.link(path, out / name)
    (out / "manifest.json").unlink(missing_ok=True)
    if subject is not None and (digest := digest_of_runner(subject)) is not None:
        edit_json(out / SOURCE, lambda record: record.update(runners={subject: digest}))
    return out
