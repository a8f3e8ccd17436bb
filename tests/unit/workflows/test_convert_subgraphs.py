"""Sub-graphs of ComfyUI's page: unfolded as the page unfolds them when it sends a graph."""

from typing import Any

import pytest

from comfy_mcp.workflows.convert import convert
from comfy_mcp.workflows.graphs import Graph
from comfy_mcp.workflows.page import MOST_NODES

from .page import saved
from .server import SERVER, flux_graph

SAMPLING = "2c61139d-9c34-4c7e-a083-7a67cc4770ad"
OUTER = "5f0c1a52-6d1e-4a35-9a62-0b6f6a4e9d11"


def folded(*, values: list[Any] | None = None, proxies: list[list[str]] | None = None) -> dict[str, Any]:
    """Return the page of the FLUX graph with the latent and the sampler (6 and 7) folded into node 75."""
    page = saved(flux_graph())
    inner = [node for node in page["nodes"] if node["id"] in (6, 7)]
    links = {link[0]: link for link in page["links"]}
    page["nodes"] = [node for node in page["nodes"] if node["id"] not in (6, 7)]
    sampler = inner[1]
    fed = [entry for entry in sampler["inputs"] if entry["name"] in ("model", "positive", "negative")]
    crossing = [links[entry["link"]] for entry in fed]
    between = next(links[entry["link"]] for entry in sampler["inputs"] if entry["name"] == "latent_image")
    leaving = next(link for link in page["links"] if link[1] == 7)
    page["links"] = [link for link in page["links"] if link not in (*crossing, between)]
    page["links"] += [[200 + n, link[1], link[2], 75, n, link[5]] for n, link in enumerate(crossing)]
    leaving[1:3] = [75, 0]
    sampler["inputs"].append({"name": "steps", "type": "INT", "widget": {"name": "steps"}, "link": 303})
    sampler["inputs"].append({"name": "seed", "type": "INT", "widget": {"name": "seed"}, "link": 304})
    inside = [
        {"id": link[0], "origin_id": -10, "origin_slot": n, "target_id": 7, "target_slot": link[4], "type": link[5]}
        for n, link in enumerate(crossing)
    ]
    names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    inside.append(dict(zip(names, between, strict=True)))
    inside.append(dict(zip(names, (303, -10, 3, 7, 9, "INT"), strict=True)))
    inside.append(dict(zip(names, (304, -10, 4, 7, 10, "INT"), strict=True)))
    inside.append(dict(zip(names, (305, 7, 0, -20, 0, "LATENT"), strict=True)))
    page["nodes"].append(
        {
            "id": 75,
            "type": SAMPLING,
            "mode": 0,
            "inputs": [
                {"name": name, "type": kind, "link": 200 + n}
                for n, (name, kind) in enumerate(
                    (("model", "MODEL"), ("positive", "CONDITIONING"), ("negative", "CONDITIONING"))
                )
            ],
            "outputs": [{"name": "LATENT", "type": "LATENT"}],
            "properties": {"proxyWidgets": proxies} if proxies is not None else {},
            "widgets_values": values or [],
        }
    )
    page["definitions"] = {
        "subgraphs": [
            {
                "id": SAMPLING,
                "name": "Sampling",
                "inputNode": {"id": -10},
                "outputNode": {"id": -20},
                "inputs": [{"name": name} for name in ("model", "positive", "negative", "steps", "seed")],
                "outputs": [{"name": "LATENT"}],
                "nodes": inner,
                "links": inside,
            }
        ]
    }
    return page


def unfolded(page: dict[str, Any]) -> Graph:
    graph, problems = convert(page, SERVER)
    assert problems == []
    return graph


def expected(**sampler: Any) -> Graph:
    """Return the FLUX graph with the ids that the folded nodes run under."""
    graph = flux_graph()
    for node in graph.values():
        for name, value in node["inputs"].items():
            if isinstance(value, list) and value[0] in ("6", "7"):
                node["inputs"][name] = [f"75:{value[0]}", value[1]]
    graph["7"]["inputs"] |= sampler
    return {f"75:{node_id}" if node_id in ("6", "7") else node_id: node for node_id, node in graph.items()}


def test_the_inner_nodes_take_the_place_of_the_subgraph() -> None:
    assert unfolded(folded()) == expected()


def test_values_on_its_face_win_over_those_inside() -> None:
    assert unfolded(folded(values=[12, 99])) == expected(steps=12, seed=99)


def test_the_order_of_the_face_is_that_of_its_proxies() -> None:
    proxies = [["-1", "seed"], ["7", "cfg"], ["7", "control_after_generate"], ["-1", "steps"]]
    assert unfolded(folded(values=[99, 2.0, None, None], proxies=proxies)) == expected(seed=99, cfg=2.0)


def test_a_link_into_its_face_wins_over_the_value_there() -> None:
    page = folded(values=[12, 99])
    page["nodes"].append({"id": 80, "type": "PrimitiveNode", "mode": 0, "widgets_values": [28, "fixed"]})
    page["links"].append([250, 80, 0, 75, 3, "INT"])
    next(node for node in page["nodes"] if node["id"] == 75)["inputs"].append({"name": "steps", "link": 250})
    assert unfolded(page) == expected(steps=28, seed=99)


@pytest.mark.parametrize("mode", [2, 4])
def test_a_muted_or_bypassed_subgraph_takes_its_nodes_with_it(mode: int) -> None:
    page = folded()
    next(node for node in page["nodes"] if node["id"] == 75)["mode"] = mode
    graph = unfolded(page)
    assert set(graph) == set(flux_graph()) - {"6", "7"}
    assert "samples" not in graph["8"]["inputs"]


def test_subgraphs_lie_in_subgraphs() -> None:
    page = folded(values=[12, 99])
    instance = next(node for node in page["nodes"] if node["id"] == 75)
    inner = {**instance, "inputs": [{**entry, "link": 400 + n} for n, entry in enumerate(instance["inputs"])]}
    names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    page["definitions"]["subgraphs"].append(
        {
            "id": OUTER,
            "name": "Around it",
            "inputs": [{"name": entry["name"]} for entry in instance["inputs"]],
            "nodes": [inner],
            "links": [
                *(dict(zip(names, (400 + n, -10, n, 75, n, "*"), strict=True)) for n in range(3)),
                dict(zip(names, (410, 75, 0, -20, 0, "LATENT"), strict=True)),
            ],
        }
    )
    instance |= {"type": OUTER, "widgets_values": []}
    graph = unfolded(page)
    assert graph["75:75:7"]["inputs"] | {"latent_image": None} == expected(steps=12, seed=99)["75:7"]["inputs"] | {
        "latent_image": None
    }
    assert graph["75:75:7"]["inputs"]["latent_image"] == ["75:75:6", 0]
    assert graph["8"]["inputs"]["samples"] == ["75:75:7", 0]


def test_a_subgraph_that_contains_itself_is_refused() -> None:
    page = folded()
    page["definitions"]["subgraphs"][0]["nodes"].append({"id": 9, "type": SAMPLING})
    graph, problems = convert(page, SERVER)
    assert graph == {}
    assert "`Sampling` contains itself" in problems[0].message


def test_subgraphs_that_multiply_are_refused() -> None:
    ids = [f"00000000-0000-0000-0000-{n:012}" for n in range(20)]
    page = folded()
    page["definitions"]["subgraphs"] = [
        {"id": ids[n], "name": f"level {n}", "nodes": [{"id": k, "type": ids[n + 1]} for k in range(3)], "links": []}
        for n in range(19)
    ] + [{"id": ids[19], "name": "leaf", "nodes": [], "links": []}]
    next(node for node in page["nodes"] if node["id"] == 75)["type"] = ids[0]
    _, problems = convert(page, SERVER)
    assert f"more than {MOST_NODES} nodes" in problems[0].message


def test_a_definition_without_the_rest_gets_an_answer() -> None:
    page = folded()
    page["definitions"]["subgraphs"][0] |= {"links": None, "inputs": None, "inputNode": 5, "nodes": [None, {}]}
    graph, problems = convert(page, SERVER)
    assert "75:7" not in graph
    assert problems
