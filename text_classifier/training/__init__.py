"""Make a classifier: data, batches, models, evaluation, saving."""
