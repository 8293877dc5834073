"""Fits calibrations to measurements; numpy and scipy are used here alone, and torch nowhere.

`observations` pairs a measurement with its structure, `coefficients` fits what the structure leaves over, `residuals`
is what the fit leaves over on families that it has not seen, and `fit` makes the document. `split` names the families
that no shipped fit sees. `own` fits a user's rows, which `rows` reads; `judge` and `compare` say how a calibration
answers measured points, `drift` what lies beyond its bound, `design` which points to measure next, and `seconds` how
long they take. `asking` is what a queue asks: which points a request names, and whether a result is to be believed.
"""
