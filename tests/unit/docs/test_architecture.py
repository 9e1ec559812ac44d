"""ARCHITECTURE.md shows the packages that there are, in the order that the import contract keeps."""

import re
import tomllib

from tests.support.documents import code_blocks, read, tables
from tests.support.examples import ROOT

DOCUMENT = read(ROOT / "ARCHITECTURE.md")


def layers() -> list[str]:
    contracts = tomllib.loads(read(ROOT / "pyproject.toml"))["tool"]["importlinter"]["contracts"]
    (contract,) = [one for one in contracts if one["type"] == "layers"]
    return [str(layer) for layer in contract["layers"]]


def test_the_picture_is_the_contract() -> None:
    (picture,) = [block for _, block in code_blocks(DOCUMENT) if block.startswith("cli")]
    assert picture.splitlines() == layers()


def test_every_package_is_described_in_the_order_of_the_layers() -> None:
    described = [name for row in next(tables(DOCUMENT))[1:] for name in re.findall(r"`(\w+)`", row[0])]
    assert described == [name for layer in layers() for name in layer.split(" | ")]
