"""Layered drawings of boxes and arrows, without graphviz: SVG, PNG, DOT and Mermaid."""
