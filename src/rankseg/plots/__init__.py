"""Pictures of decisions, differences and probabilities. Needs ``pip install 'rankseg[cli]'``.

Those that draw return a matplotlib ``Figure``, which needs no display.
"""

from __future__ import annotations

from rankseg.plots.charts import (
    class_changes,
    paired_differences,
    reliability_diagram,
    score_by_cut,
    volume_changes,
)
from rankseg.plots.examples import Example, comparison_figure, draw_examples, gain_and_loss
from rankseg.plots.figures import write_figure
from rankseg.plots.painting import paint_labels

__all__ = [
    "Example",
    "class_changes",
    "comparison_figure",
    "draw_examples",
    "gain_and_loss",
    "paint_labels",
    "paired_differences",
    "reliability_diagram",
    "score_by_cut",
    "volume_changes",
    "write_figure",
]
