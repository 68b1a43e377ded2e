"""What the notebooks of the papers share: results at scale, tables of verdicts, and the rules of figure 3."""
