"""Decisions for a score of the whole data set, as leaderboards average it (mIoU).

Counts are summed over all images before they are divided. The labels that maximise this score
compare lines ``scale p - offset`` with one pair for each class of the data set: `DatasetRule` is
fitted to the maps, saved as a small file, and taken by ``RankSEG(metric, rule=...)``.
"""

from rankseg._decision.dataset_rule import DatasetRule

__all__ = ["DatasetRule"]
