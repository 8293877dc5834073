"""What the web page shows: a job read from its address, answered, and laid out as numbers that a template can draw."""
