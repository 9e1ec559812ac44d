"""What the check of wheels asks about is what such a machine installs: no more, no less."""

from collections.abc import Iterable

from tests.support.aarch64_wheels import PROJECT, brought, installed

INDEX = {
    PROJECT: ["numpy>=1.26", 'torch>=2; extra == "run"', 'pytest>=8; extra == "pytest"'],
    "numpy": [],
    "torch": [
        'nvidia-cuda; platform_machine == "x86_64"',
        "Sym_Py>=1",
        "filelock[speed]",
        'tomli; python_version < "3.11"',
    ],
    "sym-py": ["torch"],  # a circle
    "filelock": ['fast; extra == "speed"', 'slow; extra == "other"'],
    "fast": [],
}


def requires(name: str) -> Iterable[str] | None:
    return INDEX.get(name)


def test_every_package_of_an_extra_is_found_and_those_of_other_processors_are_not() -> None:
    assert brought(["run"], requires) == {"numpy": True, "torch": True, "sym-py": True, "filelock": True, "fast": True}
    assert brought(["pytest"], requires) == {"numpy": True, "pytest": False}


def test_the_extra_for_ascend_has_what_cann_needs() -> None:
    found = brought(["ascend"])
    assert {"mindspore", "decorator", "sympy", "cffi", "protobuf", "attrs", "cython", "pathlib2", "psutil"} <= set(
        found
    )
    assert installed("no-such-package") is None
