"""What one recommender knows of a batch of queries."""
