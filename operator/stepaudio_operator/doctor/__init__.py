"""`stepaudio-operator doctor`: what of a cluster stands in the way, and its cure.

`look` reads the cluster, `findings` judges what was read; nothing is changed.
"""
