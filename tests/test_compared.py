"""Tables that a figure puts together compare, or are refused."""

import json

import pandas as pd
import pytest

from manigeo.errors import InputError
from manigeo.plots import FIGURES
from tests.drawn import TABLES

REFUSED = r"are of \d (networks|runs) \(.*other.*\): plot one|several (answers|correlations)"


def at_other_settings(table):
    """The same numbers, of other values, measured with another seed."""
    settings = [json.dumps(json.loads(text or "{}") | {"seed": 77}) for text in table["settings"]]
    return table.assign(settings=settings, value=table["value"] * 0.9)


@pytest.mark.parametrize("name", TABLES)
def test_no_figure_draws_numbers_that_were_measured_in_two_ways(name):
    table = TABLES[name]
    with pytest.raises(InputError, match=r"the same layers at different settings \(seed |several answers"):
        FIGURES[name].draw(pd.concat([table, at_other_settings(table)], ignore_index=True))


APART = {"geometry", "estimators", "sweep", "weights", "separability", "fuzziness", "latent", "transfer", "similarity"}


def of_another(table):
    return pd.concat([table, table.assign(run="other", fingerprint="zz")], ignore_index=True)


@pytest.mark.parametrize("name", sorted(APART))
def test_networks_that_are_drawn_together_have_panels_of_their_own(name):
    draw = FIGURES[name].draw
    assert len(draw(of_another(TABLES[name])).axes) > len(draw(TABLES[name]).axes)


@pytest.mark.parametrize("name", sorted(set(TABLES) - APART))
def test_two_networks_are_refused_where_one_is_drawn(name):
    with pytest.raises(InputError, match=REFUSED):
        FIGURES[name].draw(of_another(TABLES[name]))


def test_tables_of_another_program_are_refused_too():
    table = TABLES["geometry"]
    both = [table.assign(settings=f"M={n}", value=n) for n in (20, 30)]
    with pytest.raises(InputError, match="two values of the same numbers"):
        FIGURES["geometry"].draw(pd.concat(both, ignore_index=True))
