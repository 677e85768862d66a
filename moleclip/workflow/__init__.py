"""What notebooks and the workflow need: parameters, provenance, runs."""
