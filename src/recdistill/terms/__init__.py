"""The summands of losses: what compares a student's view with a teacher's, or with the data."""
