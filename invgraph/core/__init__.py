"""The contract of a layer, and what layers and graphs share."""
