"""From a trained model to the files that production reads; each is checked against the model it came from."""
