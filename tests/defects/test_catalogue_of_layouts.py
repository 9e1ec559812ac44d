"""Every shipped defect of layouts is really planted: over real ranks its subject leaves something else than the sound
one, and states the same.

All are carried out by ranks that stay, four steps each, without a graph compiler: what is planted does not depend on
the mode.
"""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.cases.case import Case, load_case
from harness.cases.runs_of_a_case import SUBJECT
from harness.certify.flow import prepare
from harness.certify.jobs import Options, job
from harness.defects import PARALLEL, Defect, shipped_defects
from harness.runs.files import TRACE
from harness.runs.trace import Trace, read_trace
from harness.studies.pool import Pool
from tests.support.catalogue import planted
from tests.support.examples import shorter

STEPS = 4
# Two ranks, then four: those that stand serve all of as many.
DEFECTS = sorted(
    (one for one in shipped_defects().values() if one.area == PARALLEL),
    key=lambda one: load_case(one.case).parallel.world_size,
)
# The first two share a case, of two ranks; the others are planted too when what they depend on changed, and by `full`.
SAMPLE = [one.id for one in DEFECTS if one.case == DEFECTS[0].case][:2]
HERE = "tests/defects/test_catalogue_of_layouts.py"


@functools.cache
def small(name: str) -> Case:
    return shorter(load_case(name), STEPS, warmup_steps=1, lr_zero_steps=1, graph_mode=False)


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """What the first training run of a subject leaves, by case and runner."""
    directory = tmp_path_factory.mktemp("layouts")
    with Pool(1, directory / "log.txt") as pool:

        @functools.cache
        def trained(name: str, runner: str) -> Trace:
            options = Options(out=directory / name / runner.rpartition(":")[2], command=(), subject=runner)
            case, _ = prepare(small(name), (), options)
            asked = job(case, options, SUBJECT)
            pool.execute([asked], case)
            return read_trace(Path(asked.directory) / TRACE)

        yield trained


def test_the_catalogue_has_defects_of_every_kind_of_sharing() -> None:
    layouts = [load_case(one.case).parallel for one in DEFECTS]
    assert len(DEFECTS) >= 14
    for shared in ("data_parallel", "model_parallel", "pipeline_stage"):
        assert any(getattr(layout, shared) > 1 for layout in layouts), shared
    assert any(layout.use_seq_parallel and layout.enable_parallel_optimizer for layout in layouts)


@pytest.mark.parametrize(
    "defect",
    planted(DEFECTS, SAMPLE, f"{HERE}::test_a_defect_changes_what_its_ranks_leave_and_states_what_was_asked_for"),
)
def test_a_defect_changes_what_its_ranks_leave_and_states_what_was_asked_for(left: Any, defect: Defect) -> None:
    sound, planted = left(defect.case, "mindspore"), left(defect.case, defect.runner)
    assert sound.complete and planted.footer is not None
    assert planted.header.alignment == sound.header.alignment, "it would be found without a number being compared"
    assert (planted.lines, planted.footer) != (sound.lines, sound.footer)
