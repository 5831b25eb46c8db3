"""Pure functions from arrays to one number per row; one loss a file, with its paper and equation."""
