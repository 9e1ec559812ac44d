"""The feed of changes of level, as Atom (RFC 4287). The same bundles on the same day give the same bytes."""

import uuid
from xml.etree import ElementTree

from harness.site.cells import Change
from harness.site.index import FEED
from harness.site.rows import TableRow
from harness.site.view import Site

ATOM = "http://www.w3.org/2005/Atom"
# Names of this project's feeds and entries: the ids of RFC 4287 are permanent and resolve to nothing.
NAMES = uuid.uuid5(uuid.NAMESPACE_URL, "urn:mindspore-certify:levels")
DIRECTION = {True: "rises", False: "falls"}


def feed(site: Site) -> str:
    """The feed, newest change first."""
    ElementTree.register_namespace("", ATOM)
    root = ElementTree.Element(f"{{{ATOM}}}feed")
    changes = [(row, change) for row in site.rows if row.computed for change in row.computed.changes]
    changes.sort(key=lambda pair: (pair[1].at, pair[0].id), reverse=True)
    _text(root, "title", "Levels of models: changes")
    _text(root, "id", f"urn:uuid:{uuid.uuid5(NAMES, ' '.join(sorted(row.id for row in site.rows)))}")
    _text(root, "updated", changes[0][1].at.isoformat() if changes else f"{site.day}T00:00:00+00:00")
    _text(_element(root, "author"), "name", "certify")
    _element(root, "link", rel="self", href=FEED, type="application/atom+xml")
    _element(root, "link", rel="alternate", href="index.html", type="text/html")
    for row, change in changes:
        _entry(_element(root, "entry"), row, change)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _entry(entry: ElementTree.Element, row: TableRow, change: Change) -> None:
    name = f"{row.model} {row.size}, {row.task}, {row.place}, {', '.join(row.details)}"
    direction = DIRECTION[change.after.reaches(change.before)]
    _text(entry, "title", f"{row.model} {row.size}, {row.task}, {row.place}: {change.before} → {change.after}")
    _text(entry, "id", f"urn:uuid:{uuid.uuid5(NAMES, f'{row.id} {change.at.isoformat()} {change.after}')}")
    _text(entry, "updated", change.at.isoformat())
    _element(entry, "link", rel="alternate", href=row.page, type="text/html")
    lacks = f" Missing for the next level: {'; '.join(change.why)}." if change.why else ""
    words = f"The level of {name} {direction} from {change.before} to {change.after}."
    _text(entry, "summary", f"{words} Bundle {change.bundle}.{lacks}")


def _element(parent: ElementTree.Element, name: str, **attributes: str) -> ElementTree.Element:
    return ElementTree.SubElement(parent, f"{{{ATOM}}}{name}", attributes)


def _text(parent: ElementTree.Element, name: str, text: str) -> None:
    # XML 1.0 has no control characters, and a bundle may hold some
    _element(parent, name).text = "".join(one for one in text if one.isprintable())
