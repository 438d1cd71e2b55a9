"""The HTTP server: the verbs of a registry under `/api/v1`, for people and services with tokens.

`config`      what a server is told to do            `run`       starts its processes, and ends them
`app`         the application: routes and handlers   `binding`   one handler for each route, or no start
`middleware`  what every request passes              `limits`    rates, sizes, times and room
`logs`        one line a request, without secrets    `metrics`   figures for Prometheus
`health`      alive, ready                           `openapi`   the API described, from the route table
`routes/`     what each route does, by subject
"""
