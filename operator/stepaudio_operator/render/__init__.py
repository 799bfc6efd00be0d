"""Spec to whole Kubernetes objects: pure functions, values in, dicts out; one file a kind of object."""
