"""What the manual's reference pages are written from: one module a page, each with a function ``page() -> str``.

    terms     every tensor that an estimate can name, with its formula and source
    keys      the keys of a job
    commands  the command line
    routes    the HTTP interface, and the shapes of its answers
    settings  the service's settings, and the other environment variables that are read
    metrics   what /metrics shows
    errors    problem types and exceptions

``shown`` fills in what other pages show of commands; ``shapes`` and ``markdown`` are what the pages are written with.
"""
