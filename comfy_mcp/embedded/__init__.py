"""A small server that speaks ComfyUI's protocol and really renders, at 32 x 32 pixels, with `tinyflux`.

It is a program of its own (`python -m comfy_mcp.embedded`): the product talks to it over the same loopback port, routes
and WebSocket as to ComfyUI 0.30, so that nothing above the adapter knows the difference, except by asking:
`/system_stats` says `"engine": "embedded"`, and every picture that it saves says so too.

    process     starts this server as a child process, and ends it
    app         builds the server: the routes over one engine
    routes/     prompts (queue, history, interrupts), jobs, sockets, listings (models, node classes), pictures
    guards      who may call, and how much they may send
    engine      the parts together, and the task that works through the queue
    queue       what waits, runs and has run
    validation  what is wrong with a graph
    execution   runs a graph in the worker's thread, with its cache; narration tells how it goes
    events      who hears what
    nodes/      the one table of node classes that /object_info, validation and execution come from
    folders     the folder layout, and which names it gives to files; uploads and weights put files there
"""
