"""CCD: teacher and student evolve together along a stream. Stages as functions from snapshots to snapshots."""
