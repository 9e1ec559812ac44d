"""How subjects are built in one process."""

from tests.support.prepared import prepared

__all__ = ["prepared"]
