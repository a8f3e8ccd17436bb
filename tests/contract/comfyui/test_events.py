"""What a WebSocket hears, in which order, and who hears it."""

from typing import Any

from tests.contract.comfyui.talk import Comfy, Names, Preview, read_capture, talking

JPEG = b"\xff\xd8\xff"


def _outline(events: list[tuple[str, dict[str, Any]]]) -> list[list[Any]]:
    """Return events in the form of the capture: the name, and what of the data is the same on every server."""
    outline: list[list[Any]] = []
    for event, data in events:
        if event == "progress_state":
            nodes = data["nodes"].items()
            outline.append([event, {node_id: [s["value"], s["max"], s["state"]] for node_id, s in nodes}])
        elif event == "progress":
            outline.append([event, [data["node"], data["value"], data["max"]]])
        elif event in {"executing", "executed"}:
            outline.append([event, data["node"]])
        else:
            outline.append([event, None])
    return outline


async def test_events_come_in_the_captured_order(comfy: Comfy) -> None:
    await comfy.run(comfy.graph(seed=101))
    await comfy.socket.send('{"type": "feature_flags", "data": {"supports_preview_metadata": true}}')
    ended = await comfy.run(comfy.graph(seed=102))
    captured: list[list[Any]] = read_capture("events.json")["run"]
    # The status that greets a socket has been heard before; feature_flags answers the client's first message.
    assert _outline(ended.events) == captured[1:]


async def test_a_message_names_its_prompt_and_time(comfy: Comfy) -> None:
    ended = await comfy.run(comfy.graph(seed=103))
    for event, data in ended.events:
        if event != "status":
            assert data["prompt_id"] == ended.prompt_id
        if event.startswith("execution_"):
            assert data == ended.message(event)
            assert isinstance(data["timestamp"], int)
    state = next(data for event, data in ended.events if event == "progress_state")
    node = next(iter(state["nodes"].values()))
    assert node.keys() == {
        "value", "max", "state", "node_id", "prompt_id", "display_node_id", "parent_node_id", "real_node_id",
    }  # fmt: skip


async def test_previews_are_bare_until_the_client_understands_more(comfy: Comfy, names: Names, comfy_url: str) -> None:
    method = {"extra_data": {"preview_method": "latent2rgb"}}
    ended = await comfy.run(comfy.graph(seed=104), **method)
    assert ended.previews
    for preview in ended.previews:
        assert (preview.kind, preview.metadata) == (1, {"format": 1})
        assert preview.picture.startswith(JPEG)

    async with talking(comfy_url, names) as modern:
        await modern.socket.send('{"type": "feature_flags", "data": {"supports_preview_metadata": true}}')
        flags = await modern.hear_until("feature_flags")
        assert flags["supports_preview_metadata"] is True
        assert flags["max_upload_size"] > 0
        ended = await modern.run(modern.graph(seed=105), **method)
    assert ended.previews
    for preview in ended.previews:
        assert preview.kind == 4
        assert preview.metadata == {
            "node_id": "31",
            "prompt_id": ended.prompt_id,
            "display_node_id": "31",
            "parent_node_id": None,
            "real_node_id": "31",
            "image_type": "image/jpeg",
        }
        assert preview.picture.startswith(JPEG)


async def test_previews_can_be_declined(comfy: Comfy) -> None:
    ended = await comfy.run(comfy.graph(seed=106), extra_data={"preview_method": "none"})
    # Older servers send what they were started with.
    if comfy.differences.has("preview_method in extra_data"):
        assert ended.previews == []


async def test_only_the_client_of_a_prompt_hears_its_events(comfy: Comfy, names: Names, comfy_url: str) -> None:
    async with talking(comfy_url, names) as observer:
        await comfy.run(comfy.graph(seed=107))
        heard: list[str] = []
        while heard.count("status") < 3:
            frame = await observer.hear()
            assert not isinstance(frame, Preview)
            heard.append(frame[0])
    assert heard == ["status", "status", "status"]


async def test_a_prompt_of_nobody_shows_its_progress_to_everybody(comfy: Comfy) -> None:
    response = await comfy.post("/prompt", {"prompt": comfy.graph(seed=108)})
    prompt_id = response.json()["prompt_id"]
    heard: set[str] = set()
    remaining = -1
    while remaining != 0:
        frame = await comfy.hear()
        if isinstance(frame, Preview):
            continue
        event, data = frame
        heard.add(event)
        remaining = data["status"]["exec_info"]["queue_remaining"] if event == "status" else remaining
    assert heard == {"status", "progress_state", "progress"}
    assert (await comfy.get(f"/history/{prompt_id}"))[prompt_id]["status"]["completed"] is True


async def test_an_identical_graph_runs_nothing_and_names_the_same_file(comfy: Comfy) -> None:
    first = await comfy.run(comfy.graph(seed=109))
    again = await comfy.run(comfy.graph(seed=109))
    assert again.images == first.images
    assert set(again.message("execution_cached")["nodes"]) == set(comfy.graph())
    assert "progress" not in again.words
    assert again.words[-3:] == ["execution_success", "status", "executing"]


async def test_freeing_memory_forgets_what_was_made(comfy: Comfy) -> None:
    first = await comfy.run(comfy.graph(seed=110))
    assert (await comfy.post("/free", {"unload_models": True, "free_memory": True})).text == ""
    again = await comfy.run(comfy.graph(seed=110))
    if again.images == first.images:
        # The answer comes before the deed: a prompt that follows at once may still be served from the cache.
        again = await comfy.run(comfy.graph(seed=110))
    assert again.images != first.images
    assert await comfy.picture(again.images[0]) == await comfy.picture(first.images[0])
    assert (await comfy.http.post("/free")).status_code == 500


async def test_a_late_connection_is_told_which_node_runs(comfy: Comfy, names: Names, comfy_url: str) -> None:
    prompt_id = await comfy.submit(comfy.graph(seed=111, steps=10000))
    await comfy.hear_until("progress", prompt_id=prompt_id)
    async with talking(comfy_url, names, comfy.client_id) as late:
        assert await late.hear() == ("executing", {"node": "31"})
        await late.post("/interrupt", {"prompt_id": prompt_id})
        ended = await late.end_of(prompt_id)
    assert ended.message("execution_interrupted")["node_id"] == "31"


async def test_a_failure_ends_with_the_null_event_too(comfy: Comfy) -> None:
    graph = comfy.graph(seed=112, negative=None)
    ended = await comfy.run(graph)
    assert ended.words[-3:] == ["execution_error", "status", "executing"]
    failure = ended.message("execution_error")
    assert failure["current_inputs"]["negative"] == [None]
    assert failure["current_inputs"]["seed"] == [112]
    assert set(failure["current_outputs"]) == set(graph)
    assert isinstance(failure["traceback"], list)
