"""Many workers at once, on machines that something else hands out.

    errors          why a fleet cannot be asked for, or not be started
    order           what each worker is told, wherever it runs
    slurm           an sbatch script: an array of workers
    kubernetes      a Job: so many pods, each a worker
    submit          gives either to the tool that starts it
    accelerators    what Ray calls the GPUs of the catalogue
    slots           which node of a Ray cluster is asked when, and when the fleet leaves
    life            one worker's life for one job, on a node of a Ray cluster
    tasks           what of this runs inside of Ray
    driver          keeps as many lives going as the cluster has GPUs: the way in for Ray

None of them counts attempts or keeps jobs: that is the service's alone, by its leases.
"""
