r"""The words that terminal, figures and report share: of every metric, flag, analysis and figure.

A name that is not here, of another program's table, stands for itself. To add a metric, a flag or a figure, add its line.
"""

from manigeo.vocabulary.figures import DRAWN, EXAMPLE_FIGURES, FIGURES, Figure
from manigeo.vocabulary.flags import FLAGS, flag_words, flags_words
from manigeo.vocabulary.kinds import in_words_of, kinds_in_words
from manigeo.vocabulary.metrics import ANALYSES, ENDINGS, METRICS, Metric, analysis_words, metric_words

__all__ = [
    "ANALYSES", "DRAWN", "ENDINGS", "EXAMPLE_FIGURES", "FIGURES", "FLAGS", "METRICS", "Figure", "Metric", "analysis_words",
    "flag_words", "flags_words", "in_words_of", "kinds_in_words", "metric_words",
]  # fmt: skip
