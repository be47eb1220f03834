"""Sphinx: `pip install -e '.[docs]'`, then `sphinx-build -nW docs docs/_build`."""

from importlib.metadata import version as version_of
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

project = "gather-async"
author = "The gather-async authors"
release = version = version_of("gather-async")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "gather-async"
html_show_copyright = False
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
# Single backticks in a docstring hold a name of ours.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True}
maximum_signature_line_length = 80  # longer ones get a line for each parameter
napoleon_numpy_docstring = False
napoleon_use_rtype = False  # what stands before a colon in "Returns:" is text, too
# The pages of other projects aren't asked for when these are built: their names stay plain text.
nitpick_ignore_regex = [("py:.*", r"(?!gather_async).*\..*"), ("py:class", "web.*")]
# Type variables, and parts that signatures name and no one makes or calls.
_INTERNAL = """
gather_async.pager.T gather_async.pager.TaskCoroutine gather_async.resources.resource.Found
gather_async.endpoint.Endpoint gather_async.waiting.coordinator.Waits
gather_async.validators.Secret gather_async.models.enums.OpenEnum
gather_async.webhooks.handlers.Handlers gather_async.webhooks.catch_up.CatchUpClient
gather_async.bulk.execution.BulkClient gather_async.bulk.candidate_file._Reading
gather_async.quota.call_queue.LimiterSlot gather_async.protocol.rate_headers.ServerQuota
gather_async.webhooks.handlers.Registration gather_async.webhooks.handlers.Handler
gather_async.observability.CallEvents gather_async.testing.clock._Timer gather_async.clock.Timer
PostgresInbox
"""
nitpick_ignore = [(kind, name) for name in _INTERNAL.split() for kind in ("py:class", "py:obj")]


def keep_colons(_: Sphinx, what: str, *rest: Any) -> None:
    """Start with a line that shows nothing: napoleon takes what is before a colon for a type."""
    if what in {"attribute", "property", "data"}:
        rest[-1].insert(0, "\\ ")


def find_elsewhere(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, text: nodes.TextElement
) -> nodes.reference | None:
    """Resolve a name of this package that a docstring of another module doesn't spell out.

    Docstrings say `GatherClient`, and signatures where a class is defined; it is
    documented where users import it from.
    """
    name = "." + str(node.get("reftarget", "")).rpartition(".")[2]
    objects = env.domains.python_domain.objects
    found = {entry.node_id for full, entry in objects.items() if full.endswith(name)}
    if node.get("refdomain") != "py" or len(found) != 1:
        return None
    (entry,) = (each for each in objects.values() if each.node_id in found and not each.aliased)
    uri = app.builder.get_relative_uri(node["refdoc"], entry.docname)
    return nodes.reference("", "", text, refuri=f"{uri}#{entry.node_id}", internal=True)


def setup(app: Sphinx) -> None:
    """Register both."""
    app.connect("autodoc-process-docstring", keep_colons, priority=400)  # before napoleon
    app.connect("missing-reference", find_elsewhere)
