"""Real dumps: msprobe dumps a step of each framework, and `certify diagnose --dump` finds no difference; with a fault
in the model it names the module. What taps saw is read by `msprobe compare`.

msprobe is installed from the index into a directory of the test, next to the frameworks that are there.
"""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from harness.corpus.draw import draw_inputs
from harness.diagnosis.dumps import DUMP
from tests.support.certify_process import certify
from tests.support.examples import ROOT, small_case
from tests.support.full import full

NOTHING, NAMED = 0, 1
# and what it imports that the frameworks do not bring
MSPROBE = (
    "mindstudio-probe==26.2.0", "einops", "openpyxl", "et-xmlfile", "matplotlib", "contourpy", "cycler", "fonttools",
    "kiwisolver", "pyparsing",
)  # fmt: skip
COMPARE = "import sys; sys.argv[0] = 'msprobe'; from msprobe.msprobe import main; main()"
DUMPS = [("torch", "tensor", "L0"), ("torch", "statistics", "mix"), ("mindspore", "tensor", "L0")]
HELD_BY = "tests/unit/diagnosis/test_dumps.py::test_a_correct_subject_differs_nowhere"


def python(probe: Path, *words: object) -> str:
    """Runs this interpreter with msprobe; what it printed."""
    path = os.pathsep.join([str(ROOT), str(probe)])
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(
        command, cwd=probe, env={**os.environ, "PYTHONPATH": path, "GLOG_v": "3"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("msprobe")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(directory), *MSPROBE]
    subprocess.run(command, check=True)
    return directory


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("case")
    chosen = small_case(graph_mode=False)
    (place / "case.yaml").write_text(yaml.safe_dump(chosen.model_dump(mode="json")))
    draw_inputs(chosen, place / "inputs")
    return place / "case.yaml"


def dumped(probe: Path, case: Path, framework: str, task: str, level: str, out: Path) -> Path:
    inputs = case.with_name("inputs")
    python(probe, "-m", "tests.support.msprobe_dump", framework, task, level, case, inputs, out)
    return out


@full(held_by=HELD_BY)
@pytest.mark.parametrize(("framework", "task", "level"), DUMPS)
def test_a_real_dump_of_a_correct_step_differs_nowhere(
    probe: Path, case: Path, tmp_path: Path, framework: str, task: str, level: str
) -> None:
    dump = dumped(probe, case, framework, task, level, tmp_path / "dump")
    done = certify("diagnose", str(case), "--dump", str(dump), "--out", str(tmp_path / "out"), "--json")
    found = json.loads(done.stdout)
    assert done.returncode == NOTHING and found["sentence"] == "nothing differs", done.stderr
    states = {check["name"]: check["state"] for check in found["checks"]}
    assert states == dict.fromkeys(("values", "gradients by place", "gradients of parameters"), "agrees")
    recorded = [reading for reading in found["readings"] if reading["state"] != "not recorded"]
    assert len(recorded) > 90 and max(reading["ratio"] for reading in recorded) < 5


@full(held_by="tests/unit/diagnosis/test_dumps.py::test_the_first_module_that_differs_is_named")
def test_of_a_real_dump_the_module_with_a_fault_is_named(probe: Path, case: Path, tmp_path: Path) -> None:
    """The same dump of a case whose norms have another epsilon: the first one differs."""
    record = yaml.safe_load(case.read_text())
    record["model"]["rms_norm_eps"] = 1e-3
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(record))
    (tmp_path / "inputs").symlink_to(case.with_name("inputs"))
    dump = dumped(probe, other, "torch", "statistics", "L0", tmp_path / "dump")
    done = certify("diagnose", str(case), "--dump", str(dump), "--out", str(tmp_path / "out"), "--json")
    found = json.loads(done.stdout)
    assert done.returncode == NAMED and found["named"]["place"] == "model.layers.0.input_layernorm", found["sentence"]


@full(held_by="tests/unit/diagnosis/test_dumps.py::test_taps_are_exported_for_each_side_once")
def test_msprobe_compares_what_taps_saw(probe: Path, case: Path, tmp_path: Path) -> None:
    dump = dumped(probe, case, "torch", "statistics", "L0", tmp_path / "dump")
    out, to = str(tmp_path / "out"), tmp_path / "exported"
    done = certify("diagnose", str(case), "--dump", str(dump), "--export", str(to), "--out", out)
    assert done.returncode == NOTHING, done.stderr
    target, golden = (next((to / side).rglob(DUMP)) for side in ("reference", "oracle"))
    python(probe, "-c", COMPARE, "compare", "-tp", target, "-gp", golden, "-o", tmp_path / "compared")
    (table,) = (tmp_path / "compared").glob("*.csv")
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 90 and all(float(row["Cosine"]) > 0.9999 for row in rows)
