"""recdistill."""
