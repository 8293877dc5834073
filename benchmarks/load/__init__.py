"""The service under load, both sides on one machine: what it answers at most, whether it holds 70 % of that, and what
it does with three times as much.

    traffic     what is asked, in which shares
    drive       asks: as fast as answers come, or at a given rate whatever comes back
    run         the four parts of the trial, against a real service
    report      the table, printed and in the manual
"""
