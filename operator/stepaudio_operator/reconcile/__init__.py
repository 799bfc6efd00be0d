"""One reconcile of one object: observe -> parse -> render -> plan -> act -> status. Level-based.

Nothing is remembered between two runs but what stands in the cluster: whatever a run leaves undone (a crash,
a refused write) the next one finds. A run returns when it wants to come back; an error that another try may
cure is raised, and the queue backs off.

`core` has what every reconcile ends with, `deployment` and `pool` one kind each, `reconciler` the dispatch.
"""
