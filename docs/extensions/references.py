"""Names without a page, of other libraries or of manigeo's inside: written plainly if they exist, a warning if not.

And what Sphinx cannot make out by itself: jaxtyping's shapes, and what dataclasses and named tuples write of themselves.
"""

import pkgutil
import re

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

ARRAYS = {"ndarray": "~numpy.ndarray", "Tensor": "~torch.Tensor"}


def exists(name: str, module: str | None) -> bool:
    """Return whether a name can be imported as it stands, or from the module whose docstring mentions it."""
    for candidate in (name, f"{module}.{name}", f"builtins.{name}", ARRAYS.get(name, name).lstrip("~")):
        try:
            pkgutil.resolve_name(candidate)
        except (ImportError, AttributeError, ValueError):
            continue
        return True
    return False


def resolve(
    app: Sphinx, environment: BuildEnvironment, node: addnodes.pending_xref, content: nodes.TextElement
) -> nodes.TextElement | None:
    if node.get("refdomain") != "py":
        return None
    return content if exists(node["reftarget"], node.get("py:module")) else None


def mend_signature(*event: object) -> tuple[str, str] | None:
    """The event autodoc-process-signature, which ends with the signature and what it returns."""
    signature, returns = event[-2:]
    if signature is None:  # a module has none
        return None
    return mended(str(signature)), mended(str(returns or ""))


def mended(text: str) -> str:
    """Arrays by their full names, which Sphinx then shortens; an ellipsis for what a dataclass's field is made by."""
    text = text.replace("<factory>", "...")
    return re.sub(r"(jaxtyping\.\w+)\[(\w+)", lambda found: f"{found[1]}[{ARRAYS.get(found[2], found[2])}", text)


def skip_field(app: Sphinx, what: str, name: str, found: object, skip: bool, options: object) -> bool | None:
    """A named tuple says of its fields only where they stand."""
    return True if (getattr(found, "__doc__", None) or "").startswith("Alias for field number") else None


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-signature", mend_signature)
    app.connect("autodoc-skip-member", skip_field)
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
