"""The service's side of the queue of probe jobs: what requests become jobs, which results are believed, and what is
made of a campaign's measurements.

`reading` reads bodies, `expansion` makes jobs of points and of models, `results` holds a result to its point and to
what was expected of it, `measurements` lists what was measured and takes in what was measured elsewhere, `campaigns`
keeps how a campaign is to end, `fitting` makes its calibration, `paging` cuts listings, `views` writes answers,
`service` is what the routes ask, and `background` does what no request asks for. The queue itself is `app.queue`.
"""
