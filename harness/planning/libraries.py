"""ELF shared libraries: the symbols that they define, those that they need, and the libraries that they link to.

No system tool is used: `pyelftools` finds the tables, numpy reads them.
"""

import importlib.util
import os
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

READER = "elftools"
# `Elf64_Sym`. Source: System V ABI, chapter 4, "Symbol Table".
SYMBOL = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"), ("size", "<u8")]
)
WEAK = 2
UNDEFINED = 0  # the section of a symbol that is defined in another library


def can_read() -> bool:
    """Whether `pyelftools` is installed."""
    return importlib.util.find_spec(READER) is not None


def defined(libraries: Sequence[Path]) -> set[str]:
    """Names that these libraries define, weak ones included."""
    return {name for library in libraries for name, has_code, _ in _symbols(library) if has_code}


def undefined(libraries: Sequence[Path]) -> set[str]:
    """Names that another library has to define, without weak ones, which may be missing."""
    return {name for library in libraries for name, has_code, weak in _symbols(library) if not has_code and not weak}


def linked(libraries: Sequence[Path]) -> list[str]:
    """Names of the libraries that these link to, sorted."""
    return sorted({name for library in libraries for name in _needed(library)})


def system_library(name: str) -> Path | None:
    """The path at which the dynamic loader finds a system library."""
    return next((path for directory in _loader_directories() if (path := directory / name).is_file()), None)


def _loader_directories() -> list[Path]:
    own = [Path(part) for part in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if part]
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    return [*own, *(Path(base) / end for base in ("/lib", "/usr/lib") for end in (multiarch, "")), *_LIB64]


_LIB64 = (Path("/lib64"), Path("/usr/lib64"))


def _symbols(library: Path) -> Iterator[tuple[str, bool, bool]]:
    """Each dynamic symbol: its name, whether it is defined here, whether it is weak."""
    with library.open("rb") as file:
        elf = _elf(file)
        table = elf.get_section_by_name(".dynsym")
        symbols = np.frombuffer(table.data(), SYMBOL)[1:]
        names = elf.get_section(table["sh_link"]).data()
    for start, section, info in zip(symbols["name"], symbols["section"], symbols["info"], strict=True):
        yield names[start : names.index(b"\0", start)].decode(), bool(section != UNDEFINED), info >> 4 == WEAK


def _needed(library: Path) -> list[str]:
    with library.open("rb") as file:
        dynamic = _elf(file).get_section_by_name(".dynamic")
        return [tag.needed for tag in dynamic.iter_tags("DT_NEEDED")]


def _elf(file: Any) -> Any:
    from elftools.elf.elffile import ELFFile

    return ELFFile(file)
