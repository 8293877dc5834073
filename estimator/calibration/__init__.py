"""From the structure to the answer: what is reserved and counted on the device, the bound, and what was measured.

`document` is a calibration as a value, `corrections` its coefficients at work, `bound` the upper number, `reserved`
what torch keeps beyond what it hands out, `evidence` what was not measured, `structural` the margins without any fit.
"""
