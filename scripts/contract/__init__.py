"""What the service promises over HTTP: whether a new OpenAPI document keeps what a released one says."""
