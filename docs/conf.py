"""Sphinx: `pip install -e '.[docs]'`, then `sphinx-build -nW docs docs/_build`."""

from functools import cache
from importlib import import_module
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

import gather_async

project = "gather-async"
author = "The gather-async authors"
release = version = version_of("gather-async")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "gather-async"
html_show_copyright = False
smartquotes = False  # pages show messages and code as they are
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


def keep_colons(_: Sphinx, what: str, *rest: Any) -> None:
    """Start with a line that shows nothing: napoleon takes what is before a colon for a type."""
    if what in {"attribute", "property", "data"}:
        rest[-1].insert(0, "\\ ")


def find_elsewhere(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, text: nodes.TextElement
) -> nodes.Node | None:
    """Resolve a name of this package that a docstring of another module doesn't spell out.

    Docstrings say `GatherClient`, and signatures where a class is defined; it is
    documented where users import it from. What users don't import stays plain text.
    """
    target = str(node.get("reftarget", ""))
    module, _, name = target.rpartition(".")
    objects = env.domains.python_domain.objects
    found = {entry.node_id for full, entry in objects.items() if full.endswith(f".{name}")}
    if node.get("refdomain") != "py" or len(found) != 1:
        is_internal = module.startswith("gather_async.") and name not in public_names()
        return text if is_internal else None
    (entry,) = (each for each in objects.values() if each.node_id in found and not each.aliased)
    uri = app.builder.get_relative_uri(node["refdoc"], entry.docname)
    return nodes.reference("", "", text, refuri=f"{uri}#{entry.node_id}", internal=True)


@cache
def public_names() -> frozenset[str]:
    """Return the names that users import, whatever package from."""
    root = Path(gather_async.__file__).parent
    packages = ("bulk", "errors", "models", "otel", "postgres", "redis", "testing", "webhooks")
    there = [name for name in packages if [*root.glob(f"{name}*")]]
    modules = [gather_async, *(import_module(f"gather_async.{name}") for name in there)]
    return frozenset(name for module in modules for name in module.__all__)


def setup(app: Sphinx) -> None:
    """Register both."""
    app.connect("autodoc-process-docstring", keep_colons, priority=400)  # before napoleon
    app.connect("missing-reference", find_elsewhere)
