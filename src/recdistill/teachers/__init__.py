"""Teachers: a live model, files of a foreign system, several as one."""
