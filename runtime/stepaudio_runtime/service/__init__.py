"""What the pods' services share: a compute thread, bounded bodies, disconnects, the engine's process."""
