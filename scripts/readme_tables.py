"""Write the tables of settings into README.md, from the classes that are the truth."""

import re
from importlib.util import find_spec
from pathlib import Path

if find_spec("mcp_toolserver") is None:
    from checkout import prepare

    prepare()

from aitk_mcp.settings import AitkSettings
from comfy_mcp.settings import ComfySettings
from mcp_toolserver.settings import settings_table

README = Path(__file__).resolve().parent.parent / "README.md"


def main() -> None:
    """Replace what stands between the marks."""
    text = README.read_text("utf-8")
    for name, settings in (("comfy_mcp", ComfySettings), ("aitk_mcp", AitkSettings)):
        start = f"<!-- settings: {name} -->"
        table = settings_table(settings)
        text = re.sub(
            f"{start}.*?<!-- end -->", lambda _, s=start, t=table: f"{s}\n{t}\n<!-- end -->", text, flags=re.DOTALL
        )
    README.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
