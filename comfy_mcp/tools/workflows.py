"""The tools around graphs: check one, list those to start from, get one filled in."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar, Literal

from anyio import to_thread
from pydantic import AliasChoices, Field

from comfy_mcp.generation.requests import RANDOM_SEED, drawn_seed
from comfy_mcp.workflow_checks import WorkflowChecks
from comfy_mcp.workflows.graphs import Graph
from comfy_mcp.workflows.mermaid import to_mermaid
from comfy_mcp.workflows.problems import MOST_PROBLEMS, Problem, has_errors
from comfy_mcp.workflows.templates import Template, find_template, get_template, list_templates
from mcp_toolserver.arguments import Arguments
from mcp_toolserver.errors import BackendUnavailable, InvalidArguments, closest, shown
from mcp_toolserver.tools import AnyTool, Call, Effect, Result, Tool

_OF_FILES = frozenset({"value_not_in_list", "lora_architecture"})
_FIXED_LISTS = frozenset({"sampler", "scheduler"})

_ENGINE_AWAY = Problem(
    code="engine_does_not_answer",
    message="ComfyUI does not answer now: the workflow was checked against what it said last, and cannot run before it "
    "answers again.",
    severity="warning",
)


class ValidateWorkflow(Arguments):
    """Check a ComfyUI graph before it is run: unknown nodes and inputs, missing or wrong links, values that are not in
    the server's lists, numbers out of range, LoRAs without effect, Stable Diffusion habits on FLUX. Queues nothing."""

    classic_mistakes: ClassVar[Mapping[str, str]] = {
        "prompt": "the graph belongs in `workflow`.",
        "graph": "the graph belongs in `workflow`.",
    }
    workflow: dict[str, Any] = Field(
        description="nodes by id, each with `class_type` and `inputs`; or a graph saved by the page"
    )


class ListWorkflows(Arguments):
    """List the graphs to start from, with the names of the parameters that each takes; get-workflow describes them."""

    family: str | None = Field(None, description="only those for this family of models: flux, sdxl, sd15, …")


class GetWorkflow(Arguments):
    """Get a graph by name with its parameters set, ready for execute-workflow, and as a Mermaid drawing."""

    classic_mistakes: ClassVar[Mapping[str, str]] = {"inputs": "values for a listed workflow belong in `parameters`."}
    name: str = Field(
        validation_alias=AliasChoices("name", "workflow_name"), description="name, as list-workflows has it"
    )
    parameters: dict[str, Any] = Field(
        default_factory=dict[str, Any], description="values by parameter; those left out keep their defaults"
    )


class WorkflowProblem(Result):
    """One fault of a graph."""

    node_id: str | None = Field(description="id of the node; null for a fault of the whole graph")
    class_type: str | None = Field(description="class of the node")
    input: str | None = Field(description="name of the input")
    code: str = Field(description="what kind of fault, in ComfyUI's words where it has them")
    severity: Literal["error", "warning"] = Field(
        description="error: ComfyUI would refuse it, fail on it, or run something else; warning: it runs"
    )
    message: str = Field(description="what is wrong, and how to mend it")
    closest_matches: list[str] = Field(description="valid values, best first; for a link, links as JSON")


class WorkflowCheck(Result):
    """What a check of a graph found."""

    valid: bool = Field(description="whether the graph can run: there may still be warnings")
    problems: list[WorkflowProblem] = Field(description=f"errors first; {MOST_PROBLEMS} at most")
    problems_left_out: int = Field(description="how many more there are")
    nodes: int = Field(description="how many nodes the graph has")
    converted: bool = Field(description="whether it was converted from the form that ComfyUI's page saves")
    message: str = Field(description="what to do next")


class WorkflowParameter(Result):
    """A value that can be set in a graph."""

    name: str = Field(description="name, for `parameters` of get-workflow")
    description: str = Field(description="what it means")
    default: str | int | float | bool = Field(description="value when it is left out; its type is the type to give")


class WorkflowSummary(Result):
    """A graph in a list."""

    name: str = Field(description="name, for get-workflow")
    title: str = Field(description="name in words")
    description: str = Field(description="what it makes")
    family: str = Field(description="family of models that it is for")
    parameters: list[str] = Field(description="names of what can be set; get-workflow has more of each")


class WorkflowList(Result):
    """The graphs to start from."""

    workflows: list[WorkflowSummary] = Field(description="by name")
    total: int = Field(description="how many")


class WorkflowGraph(Result):
    """A graph with its parameters set."""

    name: str = Field(description="name")
    title: str = Field(description="name in words")
    description: str = Field(description="what it makes")
    family: str = Field(description="family of models that it is for")
    parameters: list[WorkflowParameter] = Field(description="what can be set, with the defaults")
    workflow: dict[str, Any] = Field(description="the graph in API format, for execute-workflow")
    warnings: list[str] = Field(description="what is doubtful about the values that were given")
    mermaid: str = Field(description="the graph as a Mermaid flow chart")


def workflow_tools(checks: WorkflowChecks) -> list[AnyTool]:
    """Return the tools around graphs."""

    async def validate(args: ValidateWorkflow, call: Call) -> WorkflowCheck:
        checked = await checks.check(args.workflow)
        away = await checks.engine_is_away()
        return WorkflowCheck(
            valid=not has_errors(checked.problems),
            problems=[
                WorkflowProblem.model_validate(asdict(problem))
                for problem in (*checked.problems[:MOST_PROBLEMS], *([_ENGINE_AWAY] if away else ()))
            ],
            problems_left_out=max(0, len(checked.problems) - MOST_PROBLEMS),
            nodes=len(checked.graph or {}),
            converted=checked.converted,
            message=_verdict(len(checked.problems), runs=not has_errors(checked.problems), away=away),
        )

    async def list_all(args: ListWorkflows, call: Call) -> WorkflowList:
        # The first call reads the packaged files.
        templates = await to_thread.run_sync(list_templates)
        families = sorted({template.family for template in templates})
        if args.family is not None and args.family not in families:
            matches = closest(args.family, families)
            raise InvalidArguments(
                f"Argument `family` is {args.family!r}: no workflow is for such a family.",
                hint=f"Did you mean `{matches[0]}`?" if matches else f"There are {', '.join(families)}.",
                details={"field": "family", "value": args.family, "closest_matches": matches},
            )
        found = [_summary(template) for template in templates if args.family in {None, template.family}]
        return WorkflowList(workflows=found, total=len(found))

    async def doubts(template: Template, given: Mapping[str, Any], graph: Graph) -> list[str]:
        """Refuse what cannot run of the given values, and return what else is said of them.

        Files may still be changed before the graph is run. Without an engine there is nothing to compare.
        """
        try:
            problems = (await checks.check(graph)).problems
        except BackendUnavailable:
            return []
        places = {
            place: parameter.name
            for parameter in template.parameters
            if parameter.name in given
            for place in parameter.sets
        }
        told = [(places[at], each) for each in problems if (at := (each.node_id or "", each.input or "")) in places]
        for name, problem in told:
            of_a_file = problem.code in _OF_FILES and name not in _FIXED_LISTS
            if problem.severity == "error" and not of_a_file:
                raise InvalidArguments(
                    f"Argument `parameters.{name}` is {shown(given[name])}. {problem.message}",
                    hint=f"The closest valid value is {problem.closest_matches[0]}."
                    if problem.closest_matches
                    else "Give another value, or leave it out.",
                    details={
                        "field": f"parameters.{name}",
                        "value": given[name],
                        "closest_matches": list(problem.closest_matches),
                    },
                )
        return list(dict.fromkeys(problem.message for _, problem in told))

    async def get(args: GetWorkflow, call: Call) -> WorkflowGraph:
        template = await to_thread.run_sync(find_template, args.name)
        given = dict(args.parameters)
        if given.get("seed") == RANDOM_SEED:
            given["seed"] = drawn_seed(RANDOM_SEED)
        graph = get_template(template.name, given)
        warnings = await doubts(template, given, graph)
        return WorkflowGraph(
            name=template.name,
            title=template.title,
            description=template.description,
            family=template.family,
            parameters=[
                WorkflowParameter(name=parameter.name, description=parameter.description, default=parameter.default)
                for parameter in template.parameters
            ],
            workflow=graph,
            warnings=warnings,
            mermaid=to_mermaid(graph),
        )

    return [
        Tool(name="validate-workflow", args=ValidateWorkflow, result=WorkflowCheck, effect=Effect.READ, run=validate),
        Tool(name="list-workflows", args=ListWorkflows, result=WorkflowList, effect=Effect.READ, run=list_all),
        Tool(name="get-workflow", args=GetWorkflow, result=WorkflowGraph, effect=Effect.READ, run=get),
    ]


def _summary(template: Template) -> WorkflowSummary:
    return WorkflowSummary(
        name=template.name,
        title=template.title,
        description=template.description,
        family=template.family,
        parameters=[parameter.name for parameter in template.parameters],
    )


def _verdict(problems: int, *, runs: bool, away: bool) -> str:
    if not runs:
        return "It cannot run: correct the inputs that the errors name and check again."
    if away:
        return "No error was found, but ComfyUI does not answer now: start it, and check again before execute-workflow."
    if problems:
        return "It runs with execute-workflow, and the warnings say what the picture loses."
    return "Nothing is wrong: run it with execute-workflow."
