"""What the files of a bundle were when they were written, held by the process that judges.

Runs work in the directory of their bundle, with the rights of whoever started them. So the digest of each file is taken
before the first run begins, and of each run's files when it ends; no file is judged that is another one at the end.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from harness.base.digest import digest_file
from harness.base.errors import EvidenceError
from harness.base.records import plain_files

LOCK = ".lock"  # while the runs are made


class Disturbed(EvidenceError):
    """Files of a bundle that changed between the moment they were written and their judgement."""


class Kept:
    """The digests of the files of a directory, by relative POSIX path."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._digests = dict[str, str]()

    def add(self, names: Iterable[str]) -> None:
        """Takes files as they are now."""
        self._digests |= {name: digest_file(self._directory / name) for name in names}

    def add_all(self) -> None:
        """Takes every file that is there, as it is now."""
        self.add(name for name in plain_files(self._directory) if name != LOCK)

    def add_run(self, name: str) -> None:
        """Takes the files of a run that has ended, as they are now, in place of those of an earlier attempt."""
        self.forget(f"runs/{name}/", f"tensors/{name}.safetensors")
        self.add(f"runs/{name}/{path}" for path in plain_files(self._directory / "runs" / name))
        self.add(path for path in (f"tensors/{name}.safetensors",) if (self._directory / path).is_file())

    def forget(self, *beginnings: str) -> None:
        """Drops the files whose paths begin so: they are about to be written again, or to go."""
        self._digests = {name: digest for name, digest in self._digests.items() if not name.startswith(beginnings)}

    def check(self, found: Mapping[str, str], but: Iterable[str] = ()) -> None:
        """Checks that these files, by digest, are the ones that were taken, `but` for some that were written since.

        Raises:
            Disturbed: every file that is missing, extra or changed.
        """
        after = {name: digest for name, digest in found.items() if name not in set(but)}
        lists = {
            "changed": [name for name in after if name in self._digests and after[name] != self._digests[name]],
            "missing": [name for name in self._digests if name not in found],
            "added": [name for name in after if name not in self._digests],
        }
        if not any(lists.values()):
            return
        parts = [f"{what}: {', '.join(sorted(names))}" for what, names in lists.items() if names]
        raise Disturbed(
            f"{self._directory} is not judged: something other than this program wrote to it while its runs were made "
            f"({'; '.join(parts)}). A runner can do that, and so can another process. Find out which one did, remove "
            "the directory, and start again with another --out."
        )
