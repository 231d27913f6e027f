"""Export of graphs to programs that run without this library: torch.export, ONNX, AOTInductor."""

from invgraph.export.export import export as export
from invgraph.export.export import export_aoti as export_aoti
from invgraph.export.export import export_onnx as export_onnx
