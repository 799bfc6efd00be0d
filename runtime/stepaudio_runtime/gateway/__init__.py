"""The OpenAI-compatible API of a deployment: routes, keys, limits, and the way to the pods. No torch."""

from stepaudio_runtime.gateway.serve import serve_gateway

__all__ = ["serve_gateway"]
