"""The queue under everything that can happen to it: real processes that are killed, frozen, cut off and out of disk,
while jobs are measured; and then the proof that nothing was lost and nothing counted twice.

    plan        which faults, in which order and when: by a seed
    world       the service, its workers and its database while the faults happen
    faults      how each fault is done
    server      the service's process
    worker      a worker's process, and what runs below it
    proxy       stands between workers and service, and loses answers
    standin     what is measured instead of a model, and writes down that it was
    verdict     what the database and the disk say when it is over
    report      the table, printed and in the manual
"""
