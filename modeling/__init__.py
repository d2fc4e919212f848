"""The remote code: everything that travels beside a model's weights. It imports torch, transformers and timm only."""
