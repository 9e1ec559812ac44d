"""The page of versions: what is stated next to what was certified, and no evidence where there is none."""

import dataclasses
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.levels.stated import load_stated
from harness.runs.trace import TraceHeader
from harness.site import write_site
from harness.site.versions import versions_rows
from tests.support.bundles import ENVIRONMENT, write_example
from tests.support.examples import small_case

AT = datetime(2026, 2, 1, tzinfo=UTC)


def in_graph_mode(header: TraceHeader) -> TraceHeader:
    return dataclasses.replace(header, provenance={**header.provenance, "mode": "GRAPH"})


def with_mindspore(version: str) -> dict[str, Any]:
    return {"packages": {**ENVIRONMENT["packages"], "mindspore": version}}


def test_a_certificate_stands_in_the_row_of_its_versions_and_nowhere_else(tmp_path: Path) -> None:
    stated = load_stated().versions
    for version in (stated[0].mindspore, "2.8.0"):
        write_example(
            tmp_path / "made" / version, case=small_case(), environment=with_mindspore(version), header=in_graph_mode
        )
    site = write_site([tmp_path / "made"], tmp_path / "site", [], None, AT).site
    rows = versions_rows(site.stated.versions, site.rows)
    assert [row.mindspore for row in rows] == [*(one.mindspore for one in stated), "2.8.0"]
    assert [row.stated for row in rows] == [*stated, None]
    found = {
        row.mindspore: {(part.implementation, part.mode): len(part.rows) for part in row.certified if part.rows}
        for row in rows
    }
    own = {("qwen3_model", "GRAPH"): 1}
    assert found == {**{one.mindspore: {} for one in stated}, stated[0].mindspore: own, "2.8.0": own}


def test_the_page_names_every_stated_set_its_source_and_where_there_is_no_evidence(tmp_path: Path) -> None:
    write_example(tmp_path / "made", case=small_case(), environment=with_mindspore("2.9.0"), header=in_graph_mode)
    write_site([tmp_path / "made"], tmp_path / "site", [], None, AT)
    page = (tmp_path / "site" / "versions.html").read_text(encoding="utf-8")
    for one in load_stated().versions:
        assert f'<th scope="row">{one.mindspore_transformers}</th>' in page
        assert one.source in page and str(one.read_on) in page
    assert "no evidence" in page and "versions.html" in (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    links = re.findall(r'href="((?:cells|certificates|bundles)/[^"]+)"', page)
    assert links and all((tmp_path / "site" / link).is_file() for link in links)
