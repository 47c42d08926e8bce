"""Reading models: ONNX, PyTorch exports, Relax modules."""

from relay_passes.frontends.load import ImportedModel, import_model

__all__ = ["ImportedModel", "import_model"]
