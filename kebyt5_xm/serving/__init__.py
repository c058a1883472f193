"""The HTTP server of a model: `kebyt5-xm serve`.

`app` has the routes, `admission` what happens before them, `worker` the thread that owns the model.
"""
