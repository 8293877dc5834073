"""The worker: lends this machine's GPU to a service. It leases a point, measures it, and sends what that gave.

    loop            the worker's life: lease, measure, send; when to wait and when to leave
    errors          why a worker cannot go on, and what it hears from the service
    facts           what the machine is, and whether a point suits it
    claim           one worker for a GPU
    client          the lease protocol over HTTP
    answer          what the service answers, read strictly
    patience        how long to wait before asking again
    heartbeat       renews the lease and says that the worker lives, in a thread
    sending         what became of a lease, said until the service has answered
    spool           results and failures on disk until the service has answered
    start           finds out what the machine is, and claims its GPU and spool: the way in
    runner          the process that measures a point, and its end
    measuring       what that process runs
    stopping        drained, or stopped at once

Each measurement runs in a process of its own (`runner`), which dies with the worker and takes the probe with it. The
worker needs outbound HTTP alone: it never sees the service's database.
"""
