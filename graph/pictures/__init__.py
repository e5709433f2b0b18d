"""Evidence as SVG: a chart of each finding and the topology with the causal path. Pure; equal input, equal bytes."""

from graph.pictures.chart import finding_chart
from graph.pictures.svg import STYLE
from graph.pictures.topology import blamed, topology_picture

__all__ = ["STYLE", "blamed", "finding_chart", "topology_picture"]
