"""What touches a GPU: it measures real training steps, and holds the memory model to them.

Points and measurements
    points          a point: one job at one length, how its steps are run, and its digest
    planned         a point's job with every null resolved, or refused
    measurement     the document that a point gave, and its schema
    document        puts a measurement together from what the parent knows and the process told
    rows            the measurements of a file, each checked
    files           files of measurements that are whole whatever happens
    lock            one writer at a time for such a file
    errors          what can be wrong before there is anything to measure

Running one
    supervise       measures points in a fresh process: the way in
    checks          points, packages, checkpoint and card, before anything starts
    environment     the variables of the measured process, and which of them a point may set
    process         the parent's side of the measured process
    leash           between the two: no kill of one leaves the other behind
    protocol        the request, and the events that answer it
    watch           hears the events, keeps the time, looks at the card
    following       makes a measurement of each point from its events
    outcome         how a process ended that could not say so itself
    failure         what an exception in the process means
    versions        the packages that are installed
    host            RAM of the host, and the control groups that limit it
    child           the process itself, which alone imports torch and Unsloth

Many
    sweep           groups of points into a file that a later run goes on from
    search          the longest context that really runs, by bisection

Elsewhere
    worker          lends this machine's GPU to a service: leases points, measures them, sends what they gave
    fleet           many workers: on Slurm, on Kubernetes, on a Ray cluster

The card
    nvml            the card as the driver names it
    neighbours      whether another process used it
    ballast         holds memory back, so that a large card stands in for a small one

Twins and tiers
    twins           few layers for many: what the full depth takes
    tiers           a claim run at full depth, and its evidence
    changes         what a job must give up to fit a machine
    comparison      measurements beside the estimates of their jobs
    fitting         calibrations from measurements
"""
