"""The model folder: find, verify and load its files, safely."""
