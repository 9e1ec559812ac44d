"""No document leads to something that is not there."""

import re
from pathlib import Path

import pytest

from tests.support.documents import DOCUMENTS, SITE, code_spans, headings, links, read
from tests.support.examples import ROOT

LOCAL = [(path, target) for path in DOCUMENTS for target in links(read(path)) if "://" not in target]
# What a document calls by its place in the repository. A star stands for several files, capitals for a name of yours.
OURS = re.compile(r"(?:harness|qwen3_model|tests|benchmarks|docs|reports|baselines|\.github)/[\w./*-]*|[A-Z]+\.md")
DEFINED = re.compile(r"`((?:harness|qwen3_model|tests)/[\w/]+\.py)`: `([\w.]+)`")


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize(("path", "target"), LOCAL, ids=lambda one: named(one) if isinstance(one, Path) else one)
def test_a_link_leads_to_a_file_and_a_heading_that_exist(path: Path, target: str) -> None:
    file, _, anchor = target.partition("#")
    place = (path.parent / file).resolve() if file else path
    assert place.is_file(), f"{named(path)} links to {file}, which is not there"
    if anchor:
        found = headings(read(place))
        assert anchor in {one.on_github for one in found}, f"{named(place)} has no heading #{anchor} on GitHub"
        assert anchor in {one.on_the_site for one in found}, f"{named(place)} has no heading #{anchor} on the site"


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if SITE in path.parents], ids=named)
def test_a_page_of_the_site_links_to_nothing_outside_it(path: Path) -> None:
    targets = [target.partition("#")[0] for target in links(read(path)) if "://" not in target]
    assert [target for target in targets if SITE not in (path.parent / target).resolve().parents and target] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_a_path_that_a_document_names_exists(path: Path) -> None:
    if path.name == "CHANGELOG.md":  # names what was there
        return
    paths = [span for span in code_spans(read(path)) if OURS.fullmatch(span)]
    assert [one for one in paths if not any(ROOT.glob(one.rstrip("/")))] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=named)
def test_a_definition_that_a_document_names_is_in_its_module(path: Path) -> None:
    for module, name in DEFINED.findall(read(path)):
        last = re.escape(name.split(".")[-1])
        assert re.search(rf"^\s*(?:(?:def|class) {last}\b|{last}\s*[:=])", read(ROOT / module), re.MULTILINE), (
            f"{named(path)} names {name} of {module}, which does not define it"
        )
