"""The forms an interaction log comes in; each file turns one of them into a `Table`."""
