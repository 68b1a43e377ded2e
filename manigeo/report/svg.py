"""A matplotlib figure as SVG that can stand inside a page: small, light or dark as the page is, with a text at every point.

Nothing of it may meet the rest of the page: ids begin with the figure's name, and the style sheet that matplotlib adds is
left out (the page has it for its figures).
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence

from manigeo.report.colors import dark_rules

_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_DROPPED = {f"{_SVG}{name}" for name in ("metadata", "style")}
_EMPTY = (f"{_SVG}g", f"{_SVG}defs")
_ADDRESS = re.compile(r"url\(#([^)]+)\)")
_DECIMALS = re.compile(r"\d+\.\d{3,}")
_TRANSLATE = re.compile(r"translate\([^)]*\)")
_COLORED = re.compile(r"(?:fill|stroke): #[0-9a-f]{6};? ?")
_PLACES = ("d", "x", "y", "points")
# how the ids of groups begin that name_points gives
ANNOTATION, CELLS = "annotation-", "cells-"
_KEPT = "kept"  # the class of what has one colour on light and dark
PIXELS_A_POINT = 1.35  # a figure as wide as the page is 700 points; smaller ones stay in proportion


def inline_svg(document: str, name: str, alt: str, texts: Mapping[str, Sequence[str]]) -> str:
    """An SVG document as an element of an HTML page.

    ``texts``: of each group of points, by its id, what they stand for; a group with another number of points gets none.
    Raises ``ValueError`` where the document is not well-formed XML, as when a name in it holds a control character.
    """
    try:
        root = ET.fromstring(document)
    except ET.ParseError as error:
        raise ValueError(f"the drawing is no well-formed XML: {error}") from error
    _drop(root)
    for group in root.iter(f"{_SVG}g"):
        _describe(group, texts.get(group.get("id", ""), ()))
    _keep_annotated(root)
    _inherit(root)
    _isolate(root, name)
    _shorten(root)
    width = _width(root)
    root.attrib = {"viewBox": root.get("viewBox", ""), "id": f"{name}-svg", "role": "img", "aria-label": alt}
    root.set("style", f"--width:{width:.0f}px")
    styles = [style for element in root.iter() if (style := element.get("style"))]
    rules = ET.Element(f"{_SVG}style")
    rules.text = dark_rules(f"#{name}-svg", styles, _KEPT)
    root.insert(0, rules)
    return _without_prefix(root)


def _drop(element: ET.Element) -> None:
    for child in list(element):
        if child.tag in _DROPPED:
            element.remove(child)
        else:
            _drop(child)


def _describe(group: ET.Element, texts: Sequence[str]) -> None:
    """A title in every point; matplotlib draws points as ``use``, bars and cells of a heat map as ``path``."""
    points = [use for use in group.iter(f"{_SVG}use") if use.get("x")] or group.findall(f"{_SVG}path")
    if len(points) == len(texts):
        for point, text in zip(points, texts, strict=True):
            ET.SubElement(point, f"{_SVG}title").text = text


def _keep_annotated(root: ET.Element) -> None:
    """Keep the colours of numbers, cells and colour bars where numbers stand on the cells of a heat map."""
    groups = list(root.iter(f"{_SVG}g"))
    if any(_id(group).startswith(ANNOTATION) for group in groups):
        for group in groups:
            if _id(group).startswith((ANNOTATION, CELLS, "QuadMesh")):
                group.set("class", _KEPT)


def _id(element: ET.Element) -> str:
    return element.get("id", "")


def _inherit(root: ET.Element) -> None:
    """Remove colours from what is defined once and used at many places, so that it takes them there: rules of the page
    do not reach into its copies."""
    for path in (path for defined in root.iter(f"{_SVG}defs") for path in defined.iter(f"{_SVG}path")):
        path.set("style", _COLORED.sub("", path.get("style", "")))


def _isolate(root: ET.Element, name: str) -> None:
    """Ids under the figure's name, and none that nothing refers to."""
    for element in root.iter():
        if _HREF in element.attrib:
            element.set("href", element.attrib.pop(_HREF))
    targets = dict.fromkeys(target for element in root.iter() for target in _targets(element))
    short = {target: f"{name}-{i:x}" for i, target in enumerate(targets)}
    for element in root.iter():
        if (own := element.attrib.pop("id", None)) in short:
            element.set("id", short[own])
        if (href := element.get("href", "")).startswith("#"):
            element.set("href", f"#{short[href[1:]]}")
        for key, value in element.attrib.items():
            element.set(key, _ADDRESS.sub(lambda found: f"url(#{short[found[1]]})", value))


def _targets(element: ET.Element) -> Iterator[str]:
    for key, value in element.attrib.items():
        if key == "href" and value.startswith("#"):
            yield value[1:]
        yield from _ADDRESS.findall(value)


def _shorten(root: ET.Element) -> None:
    """Places to a hundredth of a point, lines joined, groups of nothing opened: half the bytes, the same picture."""
    for element in root.iter():
        for place in _PLACES:
            if value := element.get(place):
                element.set(place, _rounded(" ".join(value.split())))
        if moved := element.get("transform"):
            element.set("transform", _TRANSLATE.sub(lambda found: _rounded(found[0]), moved))
        if element.get("style") == "":
            del element.attrib["style"]
        if element.tag != f"{_SVG}title" and not (element.text or "").strip():
            element.text = None
        element.tail = None
        _hoist(element)
        element[:] = [inner for child in element for inner in _opened(child)]


def _hoist(group: ET.Element) -> None:
    """A style that all children of a group share is the group's."""
    styles = {child.get("style") for child in group}
    if (
        group.tag == f"{_SVG}g"
        and "style" not in group.attrib
        and len(group) > 1
        and len(styles) == 1
        and (style := styles.pop())
    ):
        group.set("style", style)
        for child in group:
            del child.attrib["style"]


def _rounded(text: str) -> str:
    return _DECIMALS.sub(lambda found: f"{float(found[0]):.2f}", text)


def _opened(element: ET.Element) -> Iterator[ET.Element]:
    """Yield the content of a group that sets nothing, else the element."""
    if element.attrib or element.tag not in _EMPTY or (element.tag == f"{_SVG}defs" and len(element)):
        yield element
    else:
        for child in element:
            yield from _opened(child)


def _width(root: ET.Element) -> float:
    """Width of the figure on a page that is wide enough."""
    return PIXELS_A_POINT * float(root.get("viewBox", "0 0 0 0").split()[2])


def _without_prefix(root: ET.Element) -> str:
    """Remove prefixes: in HTML an svg element needs no namespace, and its children cannot have a prefix."""
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
    return ET.tostring(root, encoding="unicode").replace(" />", "/>")
