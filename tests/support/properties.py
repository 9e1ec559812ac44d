"""How many examples a property is tried with: a few in `tox run`, all in `tox run -e full`."""

from hypothesis import settings

QUICK, WHOLE = "quick", "whole"

# Properties are about content, not time: a loaded machine must not fail one.
settings.register_profile(WHOLE, max_examples=100, deadline=None)
settings.register_profile(QUICK, max_examples=25, deadline=None)


def examples(number: int) -> int:
    """As many examples as the profile allows of a property that has `number` of them under `WHOLE`."""
    share = settings().max_examples / settings.get_profile(WHOLE).max_examples
    return max(10, round(number * share))
