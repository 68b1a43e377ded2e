"""One self-contained HTML page from results tables: the answer, the gate, figures, tables, settings, provenance, caveats.

::

    sources.py  what there is        page.py      the template, filled
    answer.py   gate.py  caveats.py  tables.py    figures.py  downloads.py    a section each
    seeds.py    several runs side by side    additions.py  figures and tables of a user's own
    hover.py    svg.py               a drawing of matplotlib as a part of the page

It computes nothing and draws nothing: numbers come from the tables, figures from :mod:`manigeo.plots`.
"""

from manigeo.report.additions import Report
from manigeo.report.page import render_page, write_page
from manigeo.report.sources import Sources, collect_sources

__all__ = ["Report", "Sources", "collect_sources", "render_page", "write_page"]
