"""A script in FrEIA's style in the native API, where that can be done mechanically."""
