"""Frameworks: one module for each, which only converts; import the one you need.

An adapter turns the outputs of a framework into probabilities at the right size, lets
:class:`rankseg.RankSEG` decide, and gives the decision the framework's own shape, dtype and labels.
"""
