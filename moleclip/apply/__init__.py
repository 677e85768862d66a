"""Your own molecules: readers, featurizer, predictor, learning curves, command line."""
