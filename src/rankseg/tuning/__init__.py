"""Choose how to decide on labelled maps, and tell what to expect of the choice on new cases.

1. A `Candidate` is a way to decide: options of RankSEG, and what is fitted to labelled cases.
   `standard_candidates` makes the list that is tried by default.
2. `tune` chooses by nested cross-validation. The inner folds choose, and the outer folds judge the
   choice on cases that it has not seen. Argmax is kept unless that gain is clear.
"""

from rankseg.tuning.candidates import Candidate, standard_candidates
from rankseg.tuning.choice import Tuning, tune

__all__ = ["Candidate", "Tuning", "standard_candidates", "tune"]
