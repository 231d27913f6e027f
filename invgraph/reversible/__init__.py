"""The reversible runner: training in constant memory."""
