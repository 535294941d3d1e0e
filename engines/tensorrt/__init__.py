"""TensorRT, classic 10 and 11 and TensorRT-RTX: build engines from ONNX graphs, and run them."""
