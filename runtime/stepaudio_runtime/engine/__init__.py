"""The data engine: texts from a domain, speech from a teacher, and a judge that listens to both."""
