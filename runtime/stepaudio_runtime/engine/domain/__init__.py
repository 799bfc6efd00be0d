"""What the nano voices talk about: a small world of commands, sums, times and echoes, per language.

Texts, their split into training and unseen ones, and the grammar that the judge listens with are all made
from one list of topics, so that they cannot disagree.
"""
