"""What a run leaves of its tensors: the digest of each, and the tensors themselves or their sketches."""

from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
from safetensors.numpy import save_file

from harness.base.digest import digest_array, digest_tensors
from harness.cases.case import Case
from harness.runners.job import Job
from harness.runs import predictions
from harness.runs.files import GRADIENT
from harness.runs.sketches import BUCKETS, BUCKETS_OF_FIRST_GRADIENT, recorded

Array = npt.NDArray[Any]
Tensors = Mapping[str, Array]


class Leaving:
    """Collects them, as the case states. A sketched tensor can be freed as soon as it was added."""

    def __init__(self, case: Case) -> None:
        self._sketched = case.evidence == "sketches"
        self.digests: dict[str, str] = {}
        self.left: dict[str, Array] = {}

    def add(
        self,
        prefix: str,
        tensors: Iterable[tuple[str, Array]],
        weights: Tensors | None = None,
        *,
        change: bool = False,
        whole: Container[str] = (),
    ) -> None:
        """Adds named tensors. With the initial `weights`, the part along them is left too; `change`: the change from
        them is sketched. Those in `whole` are left themselves too."""
        buckets = BUCKETS_OF_FIRST_GRADIENT if prefix == GRADIENT else BUCKETS
        for name, tensor in tensors:
            full = f"{prefix}{name}"
            self.digests[full] = digest_array(tensor)
            if self._sketched:
                initial = None if weights is None else weights[name]
                start = initial if change else None
                located = prefix == GRADIENT
                self.left |= recorded(full, tensor, buckets, located=located, start=start, weights=initial)
            if not self._sketched or full in whole:
                self.left[full] = tensor

    def add_answers(self, answers: Tensors) -> None:
        """Adds what a model answered: tokens, which are left as they are, and logits."""
        for name, tensor in answers.items():
            self.digests[name] = digest_array(tensor)
            logits = tensor.dtype.kind == "f"
            self.left |= predictions.recorded(name, tensor) if self._sketched and logits else {name: tensor}

    def keep(self, job: Job, watched: Tensors | None = None) -> str | None:
        """Writes what is left, and what is left of the steps, if the job requires it; the digest of the sketches if
        that is what was written. Of the oracle's training only its steps are compared."""
        if job.keep_tensors:
            Path(job.keep_tensors).parent.mkdir(exist_ok=True)
            unused = job.side == "oracle" and job.watch and not self._sketched
            save_file({**({} if unused else self.left), **(watched or {})}, job.keep_tensors)
        return self.digest_of_sketches if job.keep_tensors else None

    @property
    def digest_of_sketches(self) -> str | None:
        """None if the tensors themselves are left."""
        return digest_tensors(self.left) if self._sketched else None
