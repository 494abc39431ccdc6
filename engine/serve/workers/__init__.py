"""A server of several processes: each has an engine on some of the cores, and they share the ports.

One process reads JSON, makes batches and writes answers in one interpreter, which is full at some
hundred requests a second, however many cores encode. The first process (`supervisor`) listens,
starts the others (`worker`), and answers nothing itself; whatever concerns all of them goes through
it (`calls`, `engine.serve.whole`). If one ends, all do: a server whose heads are not the same
everywhere must not answer.
"""
