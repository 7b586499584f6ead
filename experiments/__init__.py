"""Train segmentation networks, keep their probabilities, and compare ways of deciding on them.

``README.md`` in this folder shows the commands, ``DATA.md`` how to get the data sets.
"""
