"""The graph: declaration, wiring, schedules, and how they are run."""
