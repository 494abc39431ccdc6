"""The engine over HTTP: `bitheads serve --bundle DIR`. Type: pip install 'bitheads[serve]'.

Requests come through `guard`, or over gRPC through `grpc_server`, past `admission` (limits, keys),
to the routes of `api`, `kserve` and others, which turn them into `work`; the `scheduler` makes
batches of the texts that wait, in the order of the `fair_queue`.
"""
