"""Settings that every test shares."""

from hypothesis import settings

# The machine may be busy: a law is broken by a counterexample, not by a slow example.
settings.register_profile("gather_async", deadline=None)
settings.load_profile("gather_async")
