"""Your own molecules: readers, featurizer, cross-validation, training, predictor, command line."""
