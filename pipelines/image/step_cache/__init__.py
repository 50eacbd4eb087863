"""Step caching: evaluations of the denoising loop that are predicted instead of computed."""
