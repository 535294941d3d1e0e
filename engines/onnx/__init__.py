"""Networks as ONNX graphs: export, and how far a graph is from its network."""
