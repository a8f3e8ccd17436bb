"""The one table of node classes; /object_info, validation and execution all read it."""

from collections.abc import Mapping
from types import MappingProxyType

from comfy_mcp.embedded.nodes.conditioning import CONDITIONERS
from comfy_mcp.embedded.nodes.definitions import NodeDefinition
from comfy_mcp.embedded.nodes.latents import LATENT_NODES
from comfy_mcp.embedded.nodes.loaders import LOADERS
from comfy_mcp.embedded.nodes.masks import MASK_NODES
from comfy_mcp.embedded.nodes.pictures import PICTURE_NODES
from comfy_mcp.embedded.nodes.sampling import SAMPLING_NODES

NODES: Mapping[str, NodeDefinition] = MappingProxyType(
    {
        definition.class_type: definition
        for definition in (*SAMPLING_NODES, *LOADERS, *CONDITIONERS, *LATENT_NODES, *MASK_NODES, *PICTURE_NODES)
    }
)
