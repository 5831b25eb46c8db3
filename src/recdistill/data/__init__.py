"""Interaction logs: read, filtered, split, drawn from, made up."""
