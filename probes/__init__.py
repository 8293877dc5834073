"""What touches a GPU: synthetic checkpoints, measured points, the worker, fleets, fitting."""
