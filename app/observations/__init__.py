"""What people's own training runs showed beside their plan: taken in, judged by the active calibration, and listed."""
