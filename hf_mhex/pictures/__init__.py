"""Pictures of saliency and of channels."""
