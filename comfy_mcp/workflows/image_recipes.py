"""How each kind of model makes pictures. The figures are those that the makers give with their models.

A model that can be built has one row here.
"""

from collections.abc import Mapping

from comfy_mcp.workflows.families import CHROMA, FLUX, QWEN_IMAGE, SD3, SD15, SDXL, Z_IMAGE
from comfy_mcp.workflows.parts import (
    CLIP_G,
    CLIP_L,
    FLUX_VAE,
    QWEN_3_4B,
    QWEN_25_VL,
    QWEN_VAE,
    SD3_VAE,
    SD15_VAE,
    SDXL_VAE,
    T5XXL,
)
from comfy_mcp.workflows.recipes import Encoders, ImageRecipe, Mode, Patch
from comfy_mcp.workflows.variants import (
    FLUX_FILL,
    FLUX_KONTEXT,
    FLUX_SCHNELL,
    QWEN_IMAGE_EDIT,
    SD15_INPAINT,
    SDXL_INPAINT,
    Z_IMAGE_TURBO,
)

_ALL: frozenset[Mode] = frozenset({"txt2img", "img2img", "inpaint", "hires", "controlnet"})
_NO_CONTROLNET: frozenset[Mode] = _ALL - {"controlnet"}
_INPAINT: frozenset[Mode] = frozenset({"inpaint"})

_FLUX_SCHEDULERS = ("simple", "beta", "sgm_uniform")
# These two space the noise by its least level, which a flow model does not have.
_NOT_FOR_FLOW = frozenset({"karras", "exponential"})
_FLUX_ENCODERS = Encoders(loader="DualCLIPLoader", type="flux", slots=(CLIP_L, T5XXL))
_QWEN_ENCODERS = Encoders(loader="CLIPLoader", type="qwen_image", slots=(QWEN_25_VL,))
_Z_ENCODERS = Encoders(loader="CLIPLoader", type="lumina2", slots=(QWEN_3_4B,))
_SDXL_ENCODERS = Encoders(loader="DualCLIPLoader", type="sdxl", slots=(CLIP_L, CLIP_G))
_LATENT_OF_16 = "EmptySD3LatentImage"


def _flux(
    name: str,
    modes: frozenset[Mode],
    *,
    guidance: float | None,
    guidance_range: tuple[float, float] = (1.0, 10.0),
    steps: int = 20,
    advised_steps: tuple[int, int] | None = (20, 30),
    inpaint_channels: bool = False,
    references: int = 0,
) -> ImageRecipe:
    return ImageRecipe(
        name=name,
        family=FLUX,
        modes=modes,
        steps=steps,
        cfg=1.0,
        fixed_cfg=True,
        guidance=guidance,
        guidance_range=guidance_range,
        sampler="heunpp2",
        scheduler="simple",
        encoders=_FLUX_ENCODERS,
        vae=FLUX_VAE,
        samplers=("heunpp2", "dpmpp_2m", "euler_ancestral"),
        schedulers=_FLUX_SCHEDULERS,
        unfit_schedulers=frozenset({"normal", *_NOT_FOR_FLOW}),
        advised_steps=advised_steps,
        inpaint="channels" if inpaint_channels else "noise-mask",
        references=references,
    )


def _flow(
    name: str,
    family: str,
    *,
    encoders: Encoders,
    steps: int,
    cfg: float,
    shift: float,
    side: int = 1024,
    sampler: str = "euler",
    scheduler: str = "simple",
    modes: frozenset[Mode] = _ALL,
    fixed_cfg: bool = False,
    more_model_patches: tuple[Patch, ...] = (),
    clip_patches: tuple[Patch, ...] = (),
    patched_by_controlnet: bool = False,
    references: int = 0,
) -> ImageRecipe:
    aura = Patch(class_type="ModelSamplingAuraFlow", title="Noise levels", settings={"shift": shift})
    return ImageRecipe(
        name=name,
        family=family,
        modes=modes,
        width=side,
        height=side,
        side_step=16,
        steps=steps,
        cfg=cfg,
        fixed_cfg=fixed_cfg,
        sampler=sampler,
        scheduler=scheduler,
        schedulers=_FLUX_SCHEDULERS,
        unfit_schedulers=_NOT_FOR_FLOW,
        encoders=encoders,
        vae=QWEN_VAE if family == QWEN_IMAGE else FLUX_VAE,
        model_patches=(aura, *more_model_patches),
        clip_patches=clip_patches,
        latent=_LATENT_OF_16,
        controlnet="model" if patched_by_controlnet else "prompts",
        reads_references="text",
        references=references,
    )


def _stable_diffusion(name: str, family: str, modes: frozenset[Mode], *, channels: bool = False) -> ImageRecipe:
    side = 512 if family == SD15 else 1024
    return ImageRecipe(
        name=name,
        family=family,
        modes=modes,
        width=side,
        height=side,
        steps=25,
        encoders=_SDXL_ENCODERS
        if family == SDXL
        else Encoders(loader="CLIPLoader", type="stable_diffusion", slots=(CLIP_L,)),
        vae=SDXL_VAE if family == SDXL else SD15_VAE,
        inpaint="channels" if channels else "noise-mask",
    )


IMAGE_RECIPES: Mapping[str, ImageRecipe] = {
    recipe.name: recipe
    for recipe in (
        _flux(FLUX, _ALL, guidance=3.5),
        _flux(FLUX_SCHNELL, _ALL, guidance=None, steps=4, advised_steps=None),
        _flux(FLUX_KONTEXT, frozenset({"txt2img", "edit", "hires"}), guidance=2.5, references=4),
        _flux(FLUX_FILL, _INPAINT, guidance=30.0, guidance_range=(1.0, 100.0), inpaint_channels=True),
        _stable_diffusion(SDXL, SDXL, _ALL),
        _stable_diffusion(SDXL_INPAINT, SDXL, _INPAINT, channels=True),
        _stable_diffusion(SD15, SD15, _ALL),
        _stable_diffusion(SD15_INPAINT, SD15, _INPAINT, channels=True),
        ImageRecipe(
            name=SD3,
            family=SD3,
            modes=_ALL,
            side_step=16,
            steps=28,
            cfg=4.5,
            sampler="dpmpp_2m",
            scheduler="sgm_uniform",
            schedulers=_FLUX_SCHEDULERS,
            unfit_schedulers=_NOT_FOR_FLOW,
            encoders=Encoders(loader="TripleCLIPLoader", slots=(CLIP_L, CLIP_G, T5XXL)),
            vae=SD3_VAE,
            latent=_LATENT_OF_16,
        ),
        _flow(
            CHROMA,
            CHROMA,
            encoders=Encoders(loader="CLIPLoader", type="chroma", slots=(T5XXL,)),
            steps=26,
            cfg=3.5,
            shift=1.0,
            scheduler="beta",
            modes=_NO_CONTROLNET,
            clip_patches=(
                Patch(
                    class_type="T5TokenizerOptions", title="No padding", settings={"min_padding": 0, "min_length": 0}
                ),
            ),
        ),
        _flow(QWEN_IMAGE, QWEN_IMAGE, encoders=_QWEN_ENCODERS, steps=20, cfg=4.0, shift=3.1, side=1328),
        _flow(
            QWEN_IMAGE_EDIT,
            QWEN_IMAGE,
            encoders=_QWEN_ENCODERS,
            steps=20,
            cfg=4.0,
            shift=3.0,
            modes=frozenset({"edit"}),
            more_model_patches=(Patch(class_type="CFGNorm", title="Even guidance", settings={"strength": 1.0}),),
            references=3,
        ),
        _flow(
            Z_IMAGE,
            Z_IMAGE,
            encoders=_Z_ENCODERS,
            steps=25,
            cfg=4.0,
            shift=3.0,
            sampler="res_multistep",
            patched_by_controlnet=True,
        ),
        _flow(
            Z_IMAGE_TURBO,
            Z_IMAGE,
            encoders=_Z_ENCODERS,
            steps=8,
            cfg=1.0,
            fixed_cfg=True,
            shift=3.0,
            sampler="res_multistep",
            patched_by_controlnet=True,
        ),
    )
}
