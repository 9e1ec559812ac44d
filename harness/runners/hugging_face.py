"""transformers, imported without scikit-learn.

Where that is installed, transformers imports it for assisted generation, which no run uses, and with it pandas and
`scipy.stats`: 2 of the 8 seconds of CPU time in which a run of the reference begins. Which packages there are, it looks
up once, at its own import.
"""

import sys

_HIDDEN = "sklearn"
_hides = _HIDDEN not in sys.modules
if _hides:
    sys.modules[_HIDDEN] = None  # type: ignore[assignment]
try:
    import transformers
finally:
    if _hides:
        del sys.modules[_HIDDEN]

__all__ = ["transformers"]
