"""The clean runs of a study: what was recorded is not run again."""

from pathlib import Path

from harness.base.records import write_json
from harness.cases.case import load_case
from harness.certify.jobs import Options
from harness.power.record import Clean
from harness.studies.clean import chosen, run_clean
from harness.studies.variations import variations_of


def test_recorded_clean_runs_of_every_variation_are_given_back(tmp_path: Path) -> None:
    case = load_case("qwen3-tiny-fp32")
    variations = variations_of(case)
    wanted = chosen(variations, 2 * len(variations))
    for one, seed in wanted:
        recorded = Clean(
            variation=one.name, seed=seed, case_digest="0" * 64, sightings=(), rules={}, closest="loss", used=0.1
        )
        write_json(tmp_path / "clean" / f"{one.name}-{seed}.json", recorded)
    made = list(run_clean(wanted, case, (), Options(out=tmp_path, command=())))
    assert {(one.variation, one.seed) for one in made} == {(one.name, seed) for one, seed in wanted}
    assert len(made) == len(wanted)
