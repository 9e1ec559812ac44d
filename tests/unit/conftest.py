"""Properties are about content, not time: a loaded machine must not fail one."""

from hypothesis import settings

settings.register_profile("unit", deadline=None)
settings.load_profile("unit")
