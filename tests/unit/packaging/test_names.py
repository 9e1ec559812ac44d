"""Names: a public class of the package has one meaning."""

import ast
from collections import defaultdict

from tests.support.examples import ROOT


def test_no_two_public_classes_have_one_name() -> None:
    places = defaultdict(list)
    for path in sorted((ROOT / "harness").rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(path.relative_to(ROOT).as_posix())
    assert {name: files for name, files in places.items() if len(files) > 1} == {}
