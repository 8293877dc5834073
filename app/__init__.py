"""The planning service and its command line."""
