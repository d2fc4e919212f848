"""Remote code: the models, their configurations and their pipelines. It travels beside the weights."""
