"""Settings that every test shares."""

import os

from hypothesis import settings

pytest_plugins = ["tests.servers"]

# The machine may be busy: a law is broken by a counterexample, not by a slow example.
settings.register_profile("gather_async", deadline=None)
# A run that decides about a change tries the same examples each time; others explore.
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "gather_async")
