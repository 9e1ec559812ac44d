"""Stub libraries of CANN: the symbols that MindSpore's Ascend plugin needs, without code.

The plugin is in MindSpore's wheel, and it loads only on a host with CANN. With these libraries it loads without CANN,
and MindSpore's own front end compiles for Ascend: strategies, pipeline stages, communication operators. Nothing of CANN
is copied, and nothing can be executed.

The names are read from MindSpore's own libraries, so they match the installed version. The stubs are made once per
version, in a directory of the user's cache that appears complete or not at all. The compiler is the first one found on
the path, or else the one in the wheel `ziglang`.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.base.digest import digest_file, digest_json
from harness.base.errors import MissingPrerequisite
from harness.planning import libraries

SOURCE = Path(__file__).with_name("cann_stub.c")
COMPILERS = ("cc", "gcc", "clang")
WHEEL = "ziglang"  # a compiler as a package
STUB = "libsymbols.so"
LIBRARIES = "cann/lib64"  # MindSpore treats a path that ends in `cann` as CANN's, and opens libraries there
# Libraries that MindSpore opens by name at run time; those it is linked to are read from its own libraries.
OPENED = ("libascendcl.so", "libacl_op_compiler.so", "libacl_tdt_channel.so", "libmsprofiler.so", "libopapi.so")
# Symbols that MindSpore looks up at run time are strings in its libraries. Those of operators come in pairs.
LOOKED_UP = re.compile(
    rb"\0(acl[A-Za-z]\w+|[Hh](?:ccl|com)[A-Z]\w+|mstx[A-Z]\w+|rt[A-Z][a-z]\w+"
    rb"|(?:Un)?InitHugeMem\w+|ReleaseHugeMem|\w*PTA[A-Z]\w+|AddTensorAddrToCachedList)(?=\0)"
)
OPERATOR, ITS_PAIR = "aclnn", "GetWorkspaceSize"
# Not needed to compile: device kernels and image processing.
NOT_LOADED = re.compile(r"cpu_kernels|custom_|/op_kernels/|libdvpp")


def stub_libraries(mindspore: Path, version: str, cache: Path | None = None) -> Path:
    """The directory of stub libraries for an installed MindSpore, for LD_LIBRARY_PATH; it is made if missing.

    Args:
        mindspore: directory of the package.
        version: its version; other versions need other symbols.
        cache: directory for the stubs; by default the user's cache directory.

    Raises:
        MissingPrerequisite: a tool that makes them is missing, or MindSpore has no Ascend plugin.
    """
    recipe = digest_json([digest_file(path) for path in (SOURCE, Path(__file__), Path(libraries.__file__))])
    directory = (cache or _user_cache()) / "cann-stubs" / f"{version}-{recipe[:12]}"
    if not directory.is_dir():
        _appear(directory, mindspore, compiler())
    return directory / LIBRARIES


def compiler() -> list[str]:
    """The command that compiles C on this machine.

    Raises:
        MissingPrerequisite: there is no compiler, or no reader of libraries; the message names what is missing.
    """
    found = next(([path] for name in COMPILERS if (path := shutil.which(name))), None)
    if found is None and importlib.util.find_spec(WHEEL) is not None:
        found = [sys.executable, "-m", WHEEL, "cc"]
    if found and libraries.can_read():
        return found
    tools = {f"a C compiler ({', '.join(COMPILERS)} or {WHEEL})": found, "pyelftools": libraries.can_read()}
    missing = " and ".join(name for name, present in tools.items() if not present)
    raise MissingPrerequisite(
        f"A dry run without CANN makes stub libraries, and {missing} is missing. "
        f"Install it with: pip install pyelftools {WHEEL}"
    )


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mindspore-certify"


def _appear(directory: Path, mindspore: Path, compile_c: Sequence[str]) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".making-") as scratch:
        made = Path(scratch) / "made"
        (made / LIBRARIES).mkdir(parents=True)
        _make(made / LIBRARIES, mindspore, compile_c)
        try:
            made.rename(directory)
        except OSError:
            if not directory.is_dir():  # otherwise another process has just made the same directory
                raise


def _make(directory: Path, mindspore: Path, compile_c: Sequence[str]) -> None:
    plugin = _plugin(mindspore)
    (directory / "symbols.inc").write_text("".join(f"{line}\n" for line in _declarations(plugin, mindspore)))
    shutil.copy(SOURCE, directory)
    _compile(compile_c, directory, STUB, SOURCE.name, "-O1", "-w")
    empty = directory / "empty.c"
    empty.touch()
    for name in sorted({*OPENED, *_missing_libraries(plugin, mindspore)}):
        _compile(compile_c, directory, name, empty.name, "-Wl,--no-as-needed", f"./{STUB}", "-Wl,-rpath,$ORIGIN")


def _compile(compile_c: Sequence[str], directory: Path, library: str, source: str, *flags: str) -> None:
    command = (*compile_c, "-shared", "-fPIC", f"-Wl,-soname,{library}", "-o", library, source, *flags)
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode:
        used = " ".join(compile_c)
        raise MissingPrerequisite(f"{used} could not make a stub library:\n{done.stderr[-2000:].strip()}")


def _plugin(mindspore: Path) -> list[Path]:
    """The libraries that MindSpore loads for Ascend on this processor."""
    base = mindspore / "lib" / "plugin"
    found = [*base.glob("libmindspore_*ascend*"), *(base / "ascend").rglob("*.so")]
    loaded = [path for path in sorted(found) if not NOT_LOADED.search(path.relative_to(base).as_posix())]
    if not loaded:
        raise MissingPrerequisite(f"MindSpore in {mindspore} has no plugin for Ascend, so there is nothing to compile.")
    return loaded


def _declarations(plugin: Sequence[Path], mindspore: Path) -> Iterator[str]:
    """Every undefined symbol, as its macro of `cann_stub.c`; sorted."""
    own = set(re.findall(r"\b(\w+)\(", SOURCE.read_text(encoding="utf-8")))
    for name in sorted((_linked(plugin) | set(_looked_up(plugin))) - _defined(plugin, mindspore) - own):
        if name.startswith("_ZN2ge8OperatorC"):
            yield f"EMPTY_OPERATOR({name})"
        elif re.match(r"_ZN2ge\d+\w+C[12]E", name):
            yield f"EMPTY({name})"
        else:
            yield f"ZERO({name})"


def _linked(plugin: Sequence[Path]) -> set[str]:
    """The symbols that the plugin links to, without those of the Python interpreter."""
    return {name for name in libraries.undefined(plugin) if not re.match(r"_?Py|__stack_chk", name)}


def _looked_up(plugin: Sequence[Path]) -> Iterator[str]:
    for path in plugin:
        if not path.name.startswith("libmindspore_"):
            continue
        for name in (found.decode() for found in LOOKED_UP.findall(path.read_bytes())):
            if name.startswith(OPERATOR):
                yield name.removesuffix(ITS_PAIR)
                yield name.removesuffix(ITS_PAIR) + ITS_PAIR
            else:
                yield name


def _defined(plugin: Sequence[Path], mindspore: Path) -> set[str]:
    """The symbols that MindSpore and the system define."""
    own = [path for path in mindspore.glob("lib/*.so*") if path.is_file()]
    system = [path for name in libraries.linked(plugin) if (path := libraries.system_library(name))]
    return libraries.defined([*own, *mindspore.glob("_c_*.so"), *plugin, *system])


def _missing_libraries(plugin: Sequence[Path], mindspore: Path) -> Iterator[str]:
    """The libraries that the plugin links to and that neither MindSpore nor the system has."""
    own = {path.name for path in mindspore.rglob("*.so*")}
    yield from (name for name in libraries.linked(plugin) if name not in own and not libraries.system_library(name))
