"""Graphs outside PyTorch's eager mode: ONNX, torch.export, 8 bits."""
