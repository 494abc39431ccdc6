"""The engine over HTTP: `bitheads serve --bundle DIR`. Type: pip install 'bitheads[serve]'.

Requests come through `guard` (limits, keys, time) to the routes of `api` and `kserve`, which turn
them into `work`; the `scheduler` makes batches of the texts that wait, in the order of the
`fair_queue`.
"""
