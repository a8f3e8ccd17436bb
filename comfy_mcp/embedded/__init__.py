"""A small server that speaks ComfyUI's protocol and really renders, at 32 x 32 pixels, with `tinyflux`.

It is a program of its own (`python -m comfy_mcp.embedded`): the product talks to it over the same loopback port, routes
and WebSocket as to ComfyUI 0.30, so that nothing above the adapter knows the difference, except by asking:
`/system_stats` says `"engine": "embedded"`, and every picture that it saves says so too.

    app         builds the server: routes, queue, worker
    prompts     POST /prompt, the queue, the history, /interrupt, /free
    jobs        the same, as 0.30's /api/jobs
    sockets     /ws
    listings    /object_info, /models, /system_stats, /features
    pictures    /view, /upload/image, /upload/mask
    queue       what waits, runs and has run
    events      who hears what
    execution   runs a graph, with its cache
    validation  PURE: what is wrong with a graph
    nodes/      the one table of node classes that /object_info, validation and execution come from
    folders     the folder layout, and which names it gives to files
    process     starts this server as a child process
"""
