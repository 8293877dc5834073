"""Documents to token lengths: files are read row by row, tokenized on every core, and only counts are kept."""
