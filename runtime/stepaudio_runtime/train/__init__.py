"""Trains the small models: a chain of resumable stages on a teacher's speech, in plain torch."""
